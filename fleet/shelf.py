"""The app archives in the bucket: brought in, used, and collected once no spec refers to them for the retention."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from fleet.bucket import Bucket, translated
from fleet.core import shelf
from fleet.core.shelf import Fate
from fleet.errors import Unavailable
from fleet.events import Events
from fleet.world import World
from node.bucket import keys
from node.bucket.cas import Held, new_nonce
from node.bucket.errors import BucketError, Conflict
from node.bucket.records import Fleet, Spec, Unused

EVERY_S = 6 * 3600.0
# After a start a controller has better to do; where a deletion was not confirmed, somebody may wait for it.
FIRST_S = RETRY_S = 60.0
# For so long an archive that was looked after stays: the record of what is unused takes at least an hour to condemn it.
SURE_S = 600.0
_BATCH = 100
_ATTEMPTS = 5
_CHANGING = "the record of unused apps keeps changing; try again"

log = structlog.get_logger("fleet.shelf")


class Shelf:
    """Whoever `acts` collects now and then; two that do are harmless, as `core.shelf` says why."""

    def __init__(self, world: World, bucket: Bucket, events: Events, acts: Callable[[], bool]) -> None:
        self._world = world
        self._bucket = bucket
        self._events = events
        self._acts = acts
        self._sure: dict[str, tuple[float, int]] = {}
        self._missed: set[str] = set()
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Collect, until cancelled."""
        wait_s = FIRST_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = EVERY_S
            if not self._acts() or not self._world.loaded:
                wait_s = FIRST_S
                continue
            try:
                await self.collect(dry_run=False)
            except (BucketError, Unavailable) as e:
                log.warning("apps were not collected", error=str(e))
                wait_s = RETRY_S
            except Exception:
                log.exception("collecting apps failed")

    async def use(self, sha256: str) -> int | None:
        """Somebody is about to refer to this archive: answers its size in bytes, None if it is not there.

        It is not collected for an hour at least, then not while a spec refers to it. Raises Unavailable while it is
        being deleted, and FleetError where the bucket does not answer.
        """
        at, size = self._sure.get(sha256, (-SURE_S, 0))
        return size if time.monotonic() < at + SURE_S else await self._look(sha256)

    async def _look(self, sha256: str) -> int | None:
        await self._keep(sha256)
        with translated(None):
            found = await self._bucket.exists(keys.app(sha256))
        if found is not None:
            self._sure[sha256] = (time.monotonic(), found)
        return found

    async def put(self, sha256: str, path: Path, size_bytes: int) -> bool:
        """Bring an archive in; answers whether it was there already. Raises as `use` does."""
        if await self._look(sha256) is not None:
            return True
        with translated(None):
            await self._bucket.put_file(keys.app(sha256), path)
        self._sure[sha256] = (time.monotonic(), size_bytes)
        return False

    async def _keep(self, *sha256: str) -> None:
        """Take archives out of the record of what is unused. Raises Unavailable for one that is being deleted."""
        for _ in range(_ATTEMPTS):
            with translated(None):
                held = await self._bucket.read(keys.UNUSED, Unused)
            if held is None or not {*held.record.apps, *held.record.going}.intersection(sha256):
                return
            if going := sorted({*held.record.going}.intersection(sha256)):
                raise Unavailable(
                    f"the app {going[0][:12]} was not used for longer than the retention and is being deleted; "
                    "repeat this in a minute"
                )
            try:
                await self._write(shelf.without(held.record, *sha256), held)
            except Conflict:
                continue
            except BucketError as e:
                raise Unavailable(f"the bucket does not answer: {e}; nothing was changed") from e
            return
        raise Unavailable(_CHANGING)

    async def collect(self, *, dry_run: bool) -> list[Fate]:
        """Judge every archive that no spec refers to, and delete what may go. Raises the bucket's errors.

        Answers what stays and what was deleted, with `dry_run` what would be. A spec that cannot be read might refer to
        any of them: then nothing goes. Where another controller changes the record meanwhile it is all judged again;
        Unavailable is raised where it keeps doing so.
        """
        gone: list[Fate] = []
        async with self._one:
            for _ in range(_ATTEMPTS):
                with suppress(Conflict):
                    judged = await self._judge(gone, dry_run=dry_run)
                    return sorted([*judged, *gone], key=lambda fate: fate.sha256)
        raise Unavailable(_CHANGING)

    async def _judge(self, gone: list[Fate], *, dry_run: bool) -> list[Fate]:
        """Answers what stays, with `dry_run` everything; what is deleted is added to `gone`, whatever comes after."""
        held = await self._bucket.read(keys.UNUSED, Unused)
        noted = held.record if held is not None else Unused(nonce="")
        used = shelf.used_by(await self._specs())
        present = await self._present()  # after the specs: what they refer to was there before them
        self._tell_missing(present, used)
        fleet = await self._bucket.read(keys.FLEET, Fleet)
        retention_s = fleet.record.retention_s if fleet is not None else Fleet.model_fields["retention_s"].default
        now = self._world.clock()
        fates = shelf.judge(present, used, noted, now=now, retention_s=retention_s)
        if dry_run:
            return fates
        after = shelf.noted_next(noted, fates, now=now)
        if (after.apps, after.going) != (noted.apps, noted.going):
            held = await self._write(after, held)
        if held is not None and held.record.going:
            await self._delete(held, {f.sha256: f for f in fates if f.goes}, gone)
        return [f for f in fates if not f.goes]

    async def _delete(self, held: Held[Unused], going: dict[str, Fate], gone: list[Fate]) -> None:
        """Delete what is condemned, batch by batch; the specs are read again before each."""
        for start in range(0, len(going), _BATCH):
            batch = sorted(going)[start : start + _BATCH]
            used = shelf.used_by(await self._specs())
            if back := sorted(used.keys() & set(batch)):
                held = await self._write(shelf.without(held.record, *back), held)
                batch = [sha256 for sha256 in batch if sha256 not in back]
            if not batch:
                continue
            for sha256 in batch:
                self._sure.pop(sha256, None)
            await self._bucket.delete(keys.app(sha256) for sha256 in batch)
            for sha256 in batch:
                gone.append(going[sha256])
                text = f"the app {sha256[:12]} was deleted: {shelf.WHY[going[sha256].why]}"
                self._events.emit("garbage", text, reason="app")
            held = await self._write(shelf.without(held.record, *batch), held)

    async def _write(self, record: Unused, held: Held[Unused] | None) -> Held[Unused]:
        named = record.model_copy(update={"nonce": new_nonce()})
        return await self._bucket.write(keys.UNUSED, named, held.etag if held is not None else None)

    async def _present(self) -> dict[str, int]:
        listed = await self._bucket.list(keys.APPS)
        return {sha256: e.size_bytes for e in listed if (sha256 := keys.app_of(e.key)) is not None}

    async def _specs(self) -> Iterable[Spec]:
        """Every spec as the bucket has it now: what is known under its very ETag, the rest is read."""
        found = []
        for entry in await self._bucket.list(keys.SPECS):
            known = self._world.specs.get(keys.name_of(entry.key))
            if known is not None and self._world.etags.get(entry.key) == entry.etag:
                found.append(known)
            elif (held := await self._bucket.read(entry.key, Spec)) is not None:
                found.append(held.record)
        return found

    def _tell_missing(self, present: Mapping[str, int], used: Mapping[str, str]) -> None:
        """Say once of an archive that a spec refers to and the bucket has not."""
        for sha256 in sorted(used.keys() - present.keys() - self._missed):
            tenant = used[sha256]
            text = f"the app {sha256[:12]} of {tenant} is not in the bucket: give it again, fleet up {tenant} --app DIR"
            self._events.emit("record", text, tenant=tenant)
        self._missed = set(used) - present.keys()
