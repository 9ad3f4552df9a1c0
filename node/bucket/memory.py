"""A bucket in memory with a real store's semantics: the contract suite holds it to the same answers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.bucket.errors import Conflict, Missing
from node.bucket.store import Entry, Object


@dataclass(frozen=True, slots=True)
class _Stored:
    body: bytes
    etag: str
    modified: float
    metadata: dict[str, str] = field(default_factory=dict)


class MemoryStore:
    """A Store whose objects live in this process. ETag is the MD5 of the body, as S3's; `clock` gives unix time."""

    def __init__(self, *, clock: Callable[[], float] = time.time, page: int = 1000) -> None:
        self._clock = clock
        self._page = page
        self._lock = threading.Lock()
        self._objects: dict[str, _Stored] = {}

    def put(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally, as Litestream does; answers the ETag. Not part of the port."""
        with self._lock:
            return self._set(key, body, metadata or {})

    def get(self, key: str) -> Object:
        """Read an object. Raises Missing."""
        with self._lock:
            stored = self._find(key)
            return Object(key, stored.etag, stored.body, self._clock())

    def create(self, key: str, body: bytes) -> str:
        """Write if there is none; answers the ETag. Raises Conflict."""
        with self._lock:
            if key in self._objects:
                raise Conflict(f"{key} exists", key=key)
            return self._set(key, body, {})

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write if the object still has this ETag; answers the new one. Raises Conflict, Missing."""
        with self._lock:
            if self._find(key).etag != etag:
                raise Conflict(f"{key} has changed", key=key)
            return self._set(key, body, {})

    def put_file(self, key: str, path: Path) -> None:
        """Write a file's bytes unconditionally."""
        self.put(key, path.read_bytes())

    def get_file(self, key: str, path: Path) -> None:
        """Write an object's bytes to a new file. Raises Missing, FileExistsError."""
        body = self.get(key).body
        with path.open("xb") as out:
            out.write(body)

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        """Objects under a prefix in key order. A page is one moment; another page may be a later one."""
        left = limit
        while left is None or left > 0:
            page = self._page_after(prefix, start_after, self._page if left is None else min(left, self._page))
            yield from page
            if not page:
                return
            start_after = page[-1].key
            left = None if left is None else left - len(page)

    def head(self, key: str) -> tuple[Entry, dict[str, str]]:
        """An object's entry and its user metadata. Raises Missing."""
        with self._lock:
            stored = self._find(key)
            return _entry(key, stored), dict(stored.metadata)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; a missing one is fine."""
        with self._lock:
            for key in keys:
                self._objects.pop(key, None)

    def _find(self, key: str) -> _Stored:
        try:
            return self._objects[key]
        except KeyError:
            raise Missing(f"no object {key}", key=key) from None

    def _set(self, key: str, body: bytes, metadata: Mapping[str, str]) -> str:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        names = {name.lower(): value for name, value in metadata.items()}
        self._objects[key] = _Stored(bytes(body), etag, self._clock(), names)
        return etag

    def _page_after(self, prefix: str, start_after: str, size: int) -> Sequence[Entry]:
        with self._lock:
            found = sorted(k for k in self._objects if k.startswith(prefix) and k > start_after)[:size]
            return [_entry(key, self._objects[key]) for key in found]


def _entry(key: str, stored: _Stored) -> Entry:
    return Entry(key, stored.etag, len(stored.body), stored.modified)
