"""What writers were told about their own writes, held against what the bucket does with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from node.bucket import cas
from node.bucket.errors import Conflict


class Lost:
    """The nonces of writes that were called lost: nothing may land under one of them any more."""

    def __init__(self) -> None:
        self._nonces: set[str] = set()

    def __contains__(self, nonce: object) -> bool:
        return nonce in self._nonces

    @contextmanager
    def told(self) -> Iterator[None]:
        """Hear what every compare-and-swap, as it now is, says of its write."""
        write = cas.write

        def heard(store: Any, key: str, record: Any, etag: str | None, **how: Any) -> Any:
            try:
                return write(store, key, record, etag, **how)
            except Conflict:
                self._nonces.add(record.nonce)
                raise

        with patch.object(cas, "write", heard):
            yield
