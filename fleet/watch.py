"""Finds what changed in the bucket by LIST and ETag, and reads only that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from fleet.bucket import Bucket
from fleet.events import Events
from fleet.index import Entries, Index
from fleet.world import World
from node.bucket import keys
from node.bucket.cas import Held
from node.bucket.errors import BadRecord, BucketError
from node.bucket.records import Cordons, Lease, Owner, Record, Spec
from node.bucket.store import Entry

# Reads at a time; a cold start reads everything.
READS = 16
RETRY_S = 1.0

log = structlog.get_logger("fleet.watch")


@dataclass(frozen=True, slots=True)
class Every:
    """Seconds between two looks. `soon_s` while a node is missed or a tenant has no place: then leases and owners tell
    what to do. Else everything is pushed by whoever changes it, and a look is for what another controller changed:
    the one that acts is told of it, one that stands by looks for specs every `standby_s`.
    """

    soon_s: float = 5.0
    leases_s: float = 30.0
    specs_s: float = 300.0
    owners_s: float = 300.0
    standby_s: float = 10.0


class Watch:
    """Keeps the world as the bucket has it. `on_leases` is called after each look at the leases."""

    def __init__(
        self,
        world: World,
        bucket: Bucket,
        events: Events,
        index: Index,
        on_leases: Callable[[], None],
        every: Every,
    ) -> None:
        self._index = index
        self._world = world
        self._bucket = bucket
        self._events = events
        self._on_leases = on_leases
        self._every = every
        self._bad: dict[str, str] = {}
        self._hurried = asyncio.Event()
        self.stands_by: Callable[[], bool] = lambda: False

    async def load(self) -> None:
        """Read everything once, tried until it works: acting on half of it would place tenants twice."""
        while True:
            try:
                known = await self._index.read()
                looks = (self._look(prefix, known) for prefix in (keys.NODES, keys.SPECS, keys.OWNERS))
                await asyncio.gather(*looks)
            except BucketError as e:
                log.warning("the bucket does not answer", error=str(e), key=e.key)
                await asyncio.sleep(RETRY_S)
                continue
            self._world.loaded = True
            self._world.at_start = frozenset(self._world.specs)
            self._world.touch_all()
            return

    async def run(self) -> None:
        """Look at each prefix at its own interval, until cancelled."""
        every = self._every
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(keys.NODES, every.leases_s, self._unsettled))
            group.create_task(self._forever(keys.OWNERS, every.owners_s, self._unsettled))
            group.create_task(self._forever(keys.SPECS, every.specs_s, self._doubtful))
            group.create_task(self._at_once())

    def hurry(self) -> None:
        """Another controller changed what should be: look now."""
        self._hurried.set()

    async def _at_once(self) -> None:
        while True:
            await self._hurried.wait()
            self._hurried.clear()
            if not await self._looked(keys.SPECS):
                self._hurried.set()
                await asyncio.sleep(RETRY_S)

    async def _forever(self, prefix: str, every_s: float, urgent: Callable[[], bool]) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(self._every.soon_s)
            wait_s = min(every_s, self._every.standby_s) if prefix == keys.SPECS and self.stands_by() else every_s
            if time.monotonic() < last + wait_s and not urgent():
                continue
            last = float("-inf")  # until it worked
            if await self._looked(prefix):
                last = time.monotonic()

    async def _looked(self, prefix: str) -> bool:
        """Look, and answer whether it worked."""
        try:
            await self._look(prefix)
        except BucketError as e:
            log.warning("the bucket does not answer", prefix=prefix, error=str(e))
        except Exception:
            log.exception("a look at the bucket failed", prefix=prefix)
        else:
            return True
        return False

    def _doubtful(self) -> bool:
        """Whether a write of a spec was given up undecided a while ago: it may still land."""
        return time.monotonic() < self._world.doubt_until

    def _unsettled(self) -> bool:
        """Whether something waits for a node: none is there, one is missed or came back, or a tenant has no place."""
        world = self._world
        machines = world.machines.values()
        missed = any(not m.reachable and m.state != "gone" for m in machines)
        back = any(m.session > world.leases[m.name].session for m in machines)
        parked = any(reason in ("no_node", "no_room") for reason, _ in world.notes.values())
        return missed or back or parked or not any(m.usable for m in machines)

    async def _look(self, prefix: str, known: Entries | None = None) -> None:
        """LIST, and read what is not `known` under the ETag that is listed."""
        begun = time.monotonic()
        listed = await self._bucket.list(prefix)
        if known:
            await self._take(prefix, listed, known)
        changed = [e for e in listed if e.key.endswith(".json") and self._world.etags.get(e.key) != e.etag]
        slots = asyncio.Semaphore(READS)
        todo = [e.key for e in changed if self._bad.get(e.key) != e.etag and not self._skip(prefix, e.key, begun)]
        await asyncio.gather(*(self._read(prefix, key, begun, slots) for key in todo))
        self._missed(prefix, {e.key for e in listed}, begun)
        if prefix == keys.NODES:
            self._on_leases()
        if prefix == keys.SPECS:
            await self.cordons()

    async def cordons(self) -> None:
        """Read what operators closed."""
        held = await self._bucket.read(keys.CORDONS, Cordons)
        if held is not None and self._world.etags.get(keys.CORDONS) != held.etag:
            self._world.set_cordons(keys.CORDONS, held)

    def _skip(self, prefix: str, key: str, begun: float) -> bool:
        """What this process wrote is known; a lease of a machine that lives is read as often as it is renewed."""
        if self._is_ours(key, begun):
            return True
        lease = self._world.leases.get(keys.name_of(key)) if prefix == keys.NODES else None
        return lease is not None and lease.state != "gone"

    def _kind(self, prefix: str) -> tuple[type[Record], Callable[[str, Held[Any]], None]]:
        """What is under a prefix, and who keeps it."""
        kinds: dict[str, tuple[type[Record], Callable[[str, Held[Any]], None]]] = {
            keys.NODES: (Lease, self._world.set_lease),
            keys.SPECS: (Spec, self._world.set_spec),
            keys.OWNERS: (Owner, self._world.set_owner),
        }
        return kinds[prefix]

    async def _take(self, prefix: str, listed: Sequence[Entry], known: Entries) -> None:
        """Keep what the index has under the ETag that is listed; whatever is wrong with the rest, it is read."""
        kind, keep = self._kind(prefix)

        def parsed() -> list[tuple[str, Held[Any]]]:
            found = []
            for entry in listed:
                etag, body = known.get(entry.key, ("", b""))
                if etag == entry.etag:
                    with suppress(BadRecord):
                        found.append((entry.key, Held(kind.decode(body, key=entry.key), etag)))
            return found

        for key, held in await asyncio.to_thread(parsed):
            if key not in self._world.etags:
                keep(key, held)

    async def _read(self, prefix: str, key: str, begun: float, slots: asyncio.Semaphore) -> None:
        kind, keep = self._kind(prefix)
        async with slots:
            try:
                held = await self._bucket.read(key, kind)
            except BadRecord as e:
                await self._unreadable(key, str(e))
                return
        if held is not None and not self._is_ours(key, begun):
            self._bad.pop(key, None)
            keep(key, held)

    async def _unreadable(self, key: str, why: str) -> None:
        found = [e for e in await self._bucket.list(key) if e.key == key]
        if found and self._bad.get(key) != found[0].etag:
            self._bad[key] = found[0].etag
            self._events.emit("record", why, tenant=None if key.startswith(keys.NODES) else keys.name_of(key))

    def _is_ours(self, key: str, begun: float) -> bool:
        """Whether this process wrote the record after the look began: what the look saw is older."""
        return self._world.written_at.get(key, 0.0) >= begun

    def _missed(self, prefix: str, present: set[str], begun: float) -> None:
        """Records are never deleted; one that vanished was deleted by hand. What is known of it is kept, and said."""
        if prefix != keys.SPECS:
            return
        for tenant in self._world.specs:
            key = keys.spec(tenant)
            if key in present or self._bad.get(key) == "gone" or self._is_ours(key, begun):
                continue
            self._bad[key] = "gone"
            text = f"the spec of {tenant} was deleted from the bucket by hand: nothing is changed on its behalf"
            self._events.emit("record", text, tenant=tenant)
