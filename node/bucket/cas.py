"""Compare-and-swap of records with a definite outcome: the same conditional PUT is repeated until it is known.

A timeout or 5xx is ambiguous: the request may still land. Reading once and not finding it proves nothing, so the same
bytes (the same nonce) are sent again under the same condition: then either it answers 200, or 412 and the record is
read: my nonce means that mine was applied; another nonce means lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from node.bucket.records import Record
from node.bucket.store import Store

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Held(Generic[R]):
    """A record as last read or written, with the ETag that a later write of ours must name."""

    record: R
    etag: str


def new_nonce() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


def read(store: Store, key: str, kind: type[R]) -> Held[R] | None:
    """The record under a key, or None if there is none. Raises BadRecord and the store's errors."""
    raise NotImplementedError


def write(
    store: Store,
    key: str,
    record: R,
    etag: str | None,
    *,
    give_up: Callable[[int], float | None],
) -> Held[R]:
    """Create (`etag` None) or replace a record, repeating the same bytes while the answer is ambiguous or busy.

    `give_up(attempt)` says how many seconds to wait before the next attempt, or None to stop.
    Raises Conflict when somebody else's record is there (definite), Ambiguous when it was given up undecided.
    """
    raise NotImplementedError
