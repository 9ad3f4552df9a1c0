"""The bucket for the event loop: the blocking store's calls on threads, their errors as the API's."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fleet.errors import FleetError, OutcomeUnknown, Unavailable
from node.bucket import cas
from node.bucket.errors import Ambiguous, BadRecord, BucketError, Busy
from node.bucket.records import Record
from node.bucket.store import Entry, Store

T = TypeVar("T")
R = TypeVar("R", bound=Record)

# Calls of the API and of actions wait for nobody's LIST: the watch has threads of its own.
THREADS = 24


class Bucket:
    """Async calls. They raise the bucket's own errors; `translated` makes them answers of the API.

    `ok_at` is the monotonic moment of the last answer, 0 before the first; `error` the last failure since then.
    """

    def __init__(self, store: Store, *, threads: int = THREADS, attempts: int = 6) -> None:
        self.store = store
        self.ok_at = 0.0
        self.error = "the bucket was not reached yet"
        self._attempts = attempts
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bucket")

    def close(self) -> None:
        """Let no further call begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def read(self, key: str, kind: type[R]) -> cas.Held[R] | None:
        """The record under a key, None if there is none."""
        return await self.call(lambda: cas.read(self.store, key, kind))

    async def write(self, key: str, record: R, etag: str | None) -> cas.Held[R]:
        """Create (`etag` None) or replace; a doubtful answer is resolved. Raises Conflict, or Ambiguous if given up."""
        give_up = cas.backoff(attempts=self._attempts)
        return await self.call(lambda: cas.write(self.store, key, record, etag, give_up=give_up))

    async def list(self, prefix: str) -> list[Entry]:
        """Everything under a prefix."""
        return await self.call(lambda: list(self.store.list(prefix)))

    async def exists(self, key: str) -> int | None:
        """The object's size in bytes, None if there is none."""
        found = await self.call(lambda: list(self.store.list(key, limit=1)))
        return found[0].size_bytes if found and found[0].key == key else None

    async def put_file(self, key: str, path: Path) -> None:
        """Upload a content-addressed file."""
        await self.call(lambda: self.store.put_file(key, path))

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete objects that nobody writes conditionally."""
        found = list(keys)
        await self.call(lambda: self.store.delete(found))

    async def call(self, what: Callable[[], T]) -> T:
        """Run a blocking call of the store on a thread, and remember whether the bucket answers."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._pool, what)
        except (Ambiguous, Busy) as e:
            self.error = str(e)
            raise
        except BucketError as e:
            if e.code in ("denied", "no_bucket", "unsupported"):
                self.error = str(e)
            else:
                self._answered()
            raise
        self._answered()
        return result

    def _answered(self) -> None:
        self.ok_at = time.monotonic()
        self.error = ""


@contextlib.contextmanager
def translated(tenant: str | None, *, writes: bool = False) -> Iterator[None]:
    """Turn the bucket's errors into answers of the API that name the tenant. Only what `writes` can be in doubt."""
    try:
        yield
    except Ambiguous as e:
        if not writes:
            raise Unavailable(f"the bucket does not answer: {e}; nothing was changed", tenant=tenant) from e
        raise OutcomeUnknown(
            f"the bucket did not say whether this was written ({e}); repeat the call: it is safe and finds out",
            tenant=tenant,
        ) from e
    except BadRecord as e:
        raise FleetError(str(e), tenant=tenant) from e
    except BucketError as e:
        raise Unavailable(f"the bucket refuses: {e}; `fleet doctor` says more", tenant=tenant) from e
