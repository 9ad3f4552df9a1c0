"""The start-up probe: whether this store keeps what ownership rests on. Every process runs it first of all."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from node.bucket.cas import GiveUp, backoff
from node.bucket.errors import Ambiguous, BucketError, Busy, Conflict, Missing, Unsupported
from node.bucket.store import Entry, Store

PREFIX = "probe/"
LEFTOVER_S = 3600.0
_DATE_RESOLUTION_S = 1.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A store that passed. `clock_offset_s` is its clock minus ours, None if it tells no time; `seconds` the whole."""

    clock_offset_s: float | None
    seconds: float


def probe(
    store: Store,
    *,
    clock: Callable[[], float] = time.time,
    give_up: GiveUp | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Probe:
    """Try create, rejected create, update, rejected stale update, read after write, list after write and delete.

    A round with an ambiguous or busy answer is begun again on a fresh key until `give_up(round)` says None.
    Raises Unsupported with what the store did wrong, Denied, NoBucket, or the last round's Ambiguous or Busy.
    """
    again = give_up or backoff(attempts=4, first_s=0.2)
    attempt = 0
    while True:
        attempt += 1
        began = time.monotonic()
        try:
            offset_s = _round(store, f"{PREFIX}{secrets.token_hex(8)}.json", clock)
            return Probe(offset_s, time.monotonic() - began)
        except (Ambiguous, Busy):
            wait_s = again(attempt)
            if wait_s is None:
                raise
            sleep(wait_s)


def _round(store: Store, key: str, clock: Callable[[], float]) -> float | None:
    try:
        _conditions(store, key)
        offset_s = _reads(store, key, clock)
    except BaseException:
        with suppress(BucketError):  # what went wrong first is what to report
            store.delete([key])
        raise
    store.delete([key])
    return offset_s


def _conditions(store: Store, key: str) -> None:
    with suppress(Conflict, Missing):
        store.replace(key, b"{}", "0" * 32)
        raise Unsupported("the store writes under If-Match where there is no object", key=key)
    first = store.create(key, _body(1))
    with suppress(Conflict):
        store.create(key, _body(0))
        raise Unsupported("the store ignores If-None-Match: a second create was accepted", key=key)
    try:
        store.replace(key, _body(2), first)
    except (Conflict, Missing):
        raise Unsupported("the store rejects If-Match with the ETag that it answered", key=key) from None
    with suppress(Conflict):
        store.replace(key, _body(0), first)
        raise Unsupported("the store ignores If-Match: a stale update was accepted", key=key)


def _reads(store: Store, key: str, clock: Callable[[], float]) -> float | None:
    before = clock()
    try:
        found = store.get(key)
    except Missing:
        raise Unsupported("an object that was just written cannot be read", key=key) from None
    after = clock()
    if found.body != _body(2):
        raise Unsupported("a read after a write answers an older object", key=key)
    listed = list(store.list(PREFIX))
    if not any(entry.key == key and entry.etag == found.etag for entry in listed):
        raise Unsupported("a list after a write does not show the newest object", key=key)
    if found.store_time is None:
        return None
    _sweep(store, listed, found.store_time)
    return _offset_s(found.store_time, before, after)


def _sweep(store: Store, listed: list[Entry], store_time: float) -> None:
    """Remove what probes left behind that died half-way."""
    old = [entry.key for entry in listed if entry.modified < store_time - LEFTOVER_S]
    if old:
        store.delete(old)


def _offset_s(store_time: float, before: float, after: float) -> float:
    """The store's clock minus ours: 0 where whole seconds and the round trip leave it open whether there is any."""
    if store_time + _DATE_RESOLUTION_S < before:
        return store_time + _DATE_RESOLUTION_S - before
    return max(0.0, store_time - after)


def _body(step: int) -> bytes:
    return json.dumps({"probe": step}).encode()
