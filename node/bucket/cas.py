"""Compare-and-swap of records with a definite outcome: the same conditional PUT is repeated until it is known.

A timeout or 5xx is ambiguous: the request may still land. Reading once and not finding it proves nothing, so the same
bytes (the same nonce) are sent again under the same condition: then either it answers 200, or 412 and the record is
read: my nonce means that mine was applied; another nonce means lost. If mine was applied and somebody else's took its
place before the repeat, that is lost too: the caller holds nothing any more.

Keys that are written here are never deleted, only replaced: otherwise a create that is still under way could land after
the deletion.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from node.bucket.errors import Ambiguous, BucketError, Busy, Conflict, Missing
from node.bucket.records import Record
from node.bucket.store import Store

R = TypeVar("R", bound=Record)
GiveUp = Callable[[int], float | None]


@dataclass(frozen=True, slots=True)
class Held(Generic[R]):
    """A record as last read or written, with the ETag that a later write of ours must name."""

    record: R
    etag: str


class State(Enum):
    """Where one write is. CLEAN: no attempt of ours can be there. DIRTY: one may be, or may still land."""

    CLEAN = auto()
    DIRTY = auto()
    LOOKING = auto()
    APPLIED = auto()
    LOST = auto()


class Event(Enum):
    """What an attempt, or the read after a refusal, answered."""

    DONE = auto()
    REFUSED = auto()
    GONE = auto()
    BUSY = auto()
    UNKNOWN = auto()
    MINE = auto()
    THEIRS = auto()


_TABLE: dict[tuple[State, Event], State] = {
    (State.CLEAN, Event.DONE): State.APPLIED,
    (State.CLEAN, Event.REFUSED): State.LOOKING,
    (State.CLEAN, Event.GONE): State.LOST,
    (State.CLEAN, Event.BUSY): State.CLEAN,
    (State.CLEAN, Event.UNKNOWN): State.DIRTY,
    (State.DIRTY, Event.DONE): State.APPLIED,
    (State.DIRTY, Event.REFUSED): State.LOOKING,
    (State.DIRTY, Event.GONE): State.LOST,
    (State.DIRTY, Event.BUSY): State.DIRTY,
    (State.DIRTY, Event.UNKNOWN): State.DIRTY,
    (State.LOOKING, Event.MINE): State.APPLIED,
    (State.LOOKING, Event.THEIRS): State.LOST,
    (State.LOOKING, Event.GONE): State.LOST,
    (State.LOOKING, Event.BUSY): State.LOOKING,
    (State.LOOKING, Event.UNKNOWN): State.LOOKING,
}


def step(state: State, event: Event) -> State:
    """The rule of a write: what is known after this answer. Raises ValueError for an answer that cannot come here."""
    try:
        return _TABLE[state, event]
    except KeyError:
        raise ValueError(f"{event.name} cannot happen while {state.name}") from None


def new_nonce() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


def backoff(
    *,
    attempts: int = 8,
    first_s: float = 0.05,
    longest_s: float = 2.0,
    draw: Callable[[], float] = random.random,
) -> GiveUp:
    """The usual `give_up`: waits that double up to `longest_s`, each between half and whole, then None.

    `draw` answers a number in [0, 1).
    """

    def wait_s(attempt: int) -> float | None:
        if attempt >= attempts:
            return None
        return float(min(longest_s, first_s * 2.0 ** (attempt - 1)) * (0.5 + draw() / 2))

    return wait_s


def read(store: Store, key: str, kind: type[R]) -> Held[R] | None:
    """The record under a key, or None if there is none. Raises BadRecord and the store's errors."""
    try:
        found = store.get(key)
    except Missing:
        return None
    return Held(kind.decode(found.body, key=key), found.etag)


def write(
    store: Store,
    key: str,
    record: R,
    etag: str | None,
    *,
    give_up: GiveUp,
    sleep: Callable[[float], None] = time.sleep,
) -> Held[R]:
    """Create (`etag` None) or replace a record, repeating the same bytes while the answer is ambiguous or busy.

    `give_up(attempt)`, counted from 1, says how many seconds to wait before the next attempt, or None to stop.
    Raises Conflict when somebody else's record is there (definite), Ambiguous when it was given up undecided; Busy when
    it was given up and Denied, NoBucket or Unsupported when it was refused, each only if nothing of it can be applied.
    """
    body = record.encode()
    state, attempt = State.CLEAN, 0
    while True:
        attempt += 1
        trouble: BucketError | None = None
        try:
            event, now_etag = (
                _look(store, key, record.nonce) if state is State.LOOKING else _put(store, key, body, etag)
            )
        except Busy as e:
            event, now_etag, trouble = Event.BUSY, "", e
        except Ambiguous as e:
            event, now_etag, trouble = Event.UNKNOWN, "", e
        except BucketError as e:
            if state is State.CLEAN:
                raise
            raise _undecided(key, e) from e
        state = step(state, event)
        if state is State.APPLIED:
            return Held(record, now_etag)
        if state is State.LOST:
            raise Conflict(f"{key}: somebody else's record is there", key=key)
        if trouble is None:
            continue  # refused: look at once whose record it is
        wait_s = give_up(attempt)
        if wait_s is None:
            raise trouble if state is State.CLEAN else _undecided(key, trouble) from trouble
        sleep(wait_s)


def _put(store: Store, key: str, body: bytes, etag: str | None) -> tuple[Event, str]:
    try:
        return Event.DONE, store.create(key, body) if etag is None else store.replace(key, body, etag)
    except Conflict:
        return Event.REFUSED, ""
    except Missing:
        return Event.GONE, ""


def _look(store: Store, key: str, nonce: str) -> tuple[Event, str]:
    try:
        found = store.get(key)
    except Missing:
        return Event.GONE, ""
    return (Event.MINE if _nonce_of(found.body) == nonce else Event.THEIRS), found.etag


def _nonce_of(body: bytes) -> object:
    """The nonce of a record of any format: a newer version's record is still somebody else's."""
    try:
        raw = json.loads(body)
    except ValueError:
        return None
    return raw.get("nonce") if isinstance(raw, dict) else None


def _undecided(key: str, cause: BucketError) -> Ambiguous:
    return Ambiguous(f"{key}: given up without knowing whether it was written: {cause}", key=key)
