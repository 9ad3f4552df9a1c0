"""The port to the bucket: what ownership needs of a store, and nothing else. Adapters: `memory`, `s3`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Object:
    """One object as read: its ETag (opaque, without quotes), its body and the store's clock at the answer."""

    key: str
    etag: str
    body: bytes
    store_time: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing. `modified` is unix time by the store's clock."""

    key: str
    etag: str
    size_bytes: int
    modified: float


class Store(Protocol):
    """Blocking calls, safe from many threads; keys are relative to the fleet's prefix.

    Every call may raise Denied, NoBucket, Busy or Ambiguous. A call is tried once: `cas` is where answers are made
    definite.
    """

    def get(self, key: str) -> Object:
        """Read an object. Raises Missing."""

    def create(self, key: str, body: bytes) -> str:
        """Write if there is none (`If-None-Match: *`); answers the ETag. Raises Conflict."""

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this ETag (`If-Match`); answers the new one. Raises Conflict, Missing."""

    def put_file(self, key: str, path: Path) -> None:
        """Write a content-addressed object, unconditionally (same key, same bytes)."""

    def get_file(self, key: str, path: Path) -> None:
        """Stream an object to a new file. Raises Missing."""

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        """Objects under a prefix in key order, a thousand a request; raises on the page that fails."""

    def head(self, key: str) -> tuple[Entry, dict[str, str]]:
        """An object's entry and its user metadata (lower-case names, without `x-amz-meta-`). Raises Missing."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a missing one is fine."""
