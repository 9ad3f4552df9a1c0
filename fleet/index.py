"""A disposable copy of all specs and owner records in one object: a cold start reads it instead of each of them.

What the bucket's LIST says is right: an entry counts only under the very ETag that was listed, anything else is read as
if there were no index. One that is missing, old or damaged costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping

import structlog

from fleet.bucket import Bucket
from fleet.world import World
from node.bucket import keys
from node.bucket.errors import BucketError, Conflict, Missing
from node.bucket.records import Record

# Written again once so much of it is out of date, looked at this often.
EVERY_S = 300.0
FIRST_S = 5.0
STALE_SHARE = 0.02
STALE_LEAST = 100
_LEVEL = 3

log = structlog.get_logger("fleet.index")

Entries = Mapping[str, tuple[str, bytes]]
"""By key: the ETag and the body of a record."""


def encode(records: Iterable[tuple[str, str, Record]]) -> bytes:
    """The index of these (key, ETag, record), as it is stored."""
    lines = (json.dumps([key, etag, record.encode().decode()]) for key, etag, record in records)
    return gzip.compress("\n".join(lines).encode(), _LEVEL, mtime=0)


def decode(stored: bytes) -> Entries:
    """What is in a stored index; nothing, if it is not one."""
    try:
        lines = [json.loads(line) for line in gzip.decompress(stored).split(b"\n") if line]
        return {str(key): (str(etag), body.encode()) for key, etag, body in lines}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zlib.error) as e:
        log.warning("the index cannot be read: everything is read one by one", error=str(e))
        return {}


class Index:
    """Reads the index for a start and, where this controller `acts`, writes it now and then."""

    def __init__(self, world: World, bucket: Bucket, acts: Callable[[], bool]) -> None:
        self._world = world
        self._bucket = bucket
        self._acts = acts
        self._etag: str | None = None
        self._written: dict[str, str] = {}

    async def read(self) -> Entries:
        """What the index says; nothing when there is none, or it cannot be had."""
        try:
            found = await self._bucket.call(lambda: self._bucket.store.get(keys.INDEX))
        except BucketError as e:
            self._etag = None
            if not isinstance(e, Missing):
                log.warning("the index cannot be read: everything is read one by one", error=str(e))
            return {}
        entries = await asyncio.to_thread(decode, found.body)
        self._etag = found.etag
        self._written = {key: etag for key, (etag, _) in entries.items()}
        return entries

    async def run(self) -> None:
        """Keep it useful, until cancelled."""
        await asyncio.sleep(FIRST_S)  # a start has better to do
        while True:
            if self._acts() and self._world.loaded and self.stale() >= self._bound():
                try:
                    await self.write()
                except BucketError as e:
                    log.warning("the index was not written", error=str(e))
            await asyncio.sleep(EVERY_S)

    def stale(self) -> int:
        """How many records a start would have to read one by one."""
        etags = self._world.etags
        now = (k for k in etags if k.startswith((keys.SPECS, keys.OWNERS)))
        return sum(self._written.get(key) != etags[key] for key in now)

    async def write(self) -> None:
        """Write it as things are now. Where another controller was faster, its index is as good. Raises BucketError."""
        began = time.monotonic()
        found = list(self._records())
        body = await asyncio.to_thread(encode, found)
        store, etag = self._bucket.store, self._etag
        try:
            if etag is None:
                self._etag = await self._bucket.call(lambda: store.create(keys.INDEX, body))
            else:
                self._etag = await self._bucket.call(lambda: store.replace(keys.INDEX, body, etag))
        except (Conflict, Missing):
            await self.read()
            return
        self._written = {key: etag for key, etag, _ in found}
        log.info("index written", records=len(found), size_bytes=len(body), took_s=round(time.monotonic() - began, 2))

    def _records(self) -> Iterable[tuple[str, str, Record]]:
        etags = self._world.etags
        for tenant, spec in self._world.specs.items():
            if (etag := etags.get(keys.spec(tenant))) is not None:
                yield keys.spec(tenant), etag, spec
        for tenant, owner in self._world.owners.items():
            if (etag := etags.get(keys.owner(tenant))) is not None:
                yield keys.owner(tenant), etag, owner

    def _bound(self) -> int:
        return max(STALE_LEAST, int(STALE_SHARE * len(self._written)))
