"""What a node tidies up: dead epochs of its tenants in the bucket, and volumes that were set aside on its disk.

Once a day for each tenant, spread out, and soon after one moved; one at a time, so that the bucket never notices.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from node.agent.custody import garbage
from node.agent.custody.collect import Collected, Survey
from node.agent.custody.errors import CustodyError, Refused
from node.agent.node import Node
from node.agent.ports import AsideVolume, RuntimeFailed
from node.api import GarbageItem, GarbageReport
from node.bucket.errors import BucketError

log = structlog.get_logger()

DAY_S = 86_400.0
STEP_S = 5.0
# After a start or a move: once what a zombie had under way has landed, and not everybody's at once.
FIRST_S = 60.0
SPREAD_S = 600.0


@dataclass
class Janitor:
    """Everything here runs on the agent's event loop. `on_collected` hears (objects, bytes) that went."""

    node: Node
    live: Callable[[], bool]
    on_collected: Callable[[int, int], None] = lambda _o, _b: None
    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random
    aside: tuple[AsideVolume, ...] | None = None
    _due: dict[str, float] = field(default_factory=dict)
    _epochs: dict[str, int] = field(default_factory=dict)
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep(self) -> None:
        """For ever."""
        while True:
            await self._look_aside()
            for tenant in self._ready():
                try:
                    await self.tidy(tenant, dry_run=False)
                except (CustodyError, BucketError, RuntimeFailed) as e:
                    log.info("not tidied up", tenant=tenant, error=str(e))
                except Exception:
                    log.exception("tidying up failed", tenant=tenant)  # its neighbours' goes on
            await asyncio.sleep(STEP_S)

    def _ready(self) -> list[str]:
        """Whose time has come; each of them has its next one."""
        if not self.live() or not self.node.adopted:
            return []
        names = {*self.node.tenants, *(v.tenant for v in self.aside or ())}
        for gone in set(self._due) - names:
            self._due.pop(gone)
        ready, at = [], self.monotonic()
        for name in sorted(names):
            epoch = self.node.board.get(name).data_epoch
            if name not in self._due or epoch != self._epochs.get(name):
                self._epochs[name] = epoch
                self._due[name] = at + FIRST_S + SPREAD_S * self.draw()
            elif self._due[name] <= at:
                self._due[name] = at + DAY_S * (0.9 + 0.2 * self.draw())
                ready.append(name)
        return ready

    async def tidy(self, tenant: str, *, dry_run: bool) -> GarbageReport:
        """What of a tenant is garbage here; it goes unless `dry_run`. Raises RuntimeFailed, the store's errors."""
        async with self._one:
            held = self.node.tenants.get(tenant)
            want = held.want if held is not None else None
            retention_s = want.spec.retention if want is not None else await self.node.parts.custody.retention_s()
            found, collected = None, Collected()
            if want is not None and self.live():
                found = await self._survey(tenant, retention_s)
            if found is not None:
                self._tell(tenant, found)
                if not dry_run:
                    collected = await self.node.parts.custody.collect(tenant, found)
                    self.on_collected(collected.objects, collected.size_bytes)
            volumes = await self._volumes(tenant, retention_s, dry_run=dry_run)
            return GarbageReport(
                tenant=tenant, node=self.node.head.node, dry_run=dry_run, owner=found is not None,
                items=(*_epochs(found), *volumes), deleted_objects=collected.objects,
                deleted_bytes=collected.size_bytes, done=collected.done,
            )  # fmt: skip

    async def _survey(self, tenant: str, retention_s: float) -> Survey | None:
        try:
            return await self.node.parts.custody.survey(tenant, retention_s)
        except Refused:
            return None  # it is somebody else's, or not settled: nothing of it is judged here

    def _tell(self, tenant: str, found: Survey) -> None:
        walk = self.node.tenants[tenant].walk
        before = walk.orphans
        walk.orphans = found.orphans
        if found.orphans != before:
            self.node.board.update(tenant, warnings=walk.told())

    async def _volumes(self, tenant: str, retention_s: float, *, dry_run: bool) -> list[GarbageItem]:
        mine = [v for v in await self._look_aside() if v.tenant == tenant]
        settled = await self.node.parts.custody.settled(tenant) if mine else True
        items = []
        for v in mine:
            goes, why = garbage.expires(v.at, now=self.now(), retention_s=retention_s, settled=settled)
            if goes and not dry_run:
                await asyncio.to_thread(self.node.parts.volumes.drop_aside, v.path)
                log.info("a volume that was set aside has expired", tenant=tenant, path=str(v.path))
            items.append(
                GarbageItem(
                    kind="volume", name=str(v.path), size_bytes=v.size_bytes, goes=goes, reason=why,
                    message=garbage.ASIDE[why],
                )
            )  # fmt: skip
        return items

    async def _look_aside(self) -> tuple[AsideVolume, ...]:
        self.aside = tuple(await asyncio.to_thread(self.node.parts.volumes.aside))
        return self.aside


def _epochs(found: Survey | None) -> list[GarbageItem]:
    """One item an epoch, and one for each file that a zombie went on with."""
    if found is None:
        return []
    items = []
    for fate in found.fates:
        holding = found.holdings[fate.epoch]
        items.append(
            GarbageItem(
                kind="epoch", name=f"epoch {fate.epoch}", objects=holding.objects, size_bytes=holding.size_bytes,
                goes=fate.goes, reason=fate.why, message=garbage.WHY[fate.why],
            )
        )  # fmt: skip
    for epoch, files in sorted(found.orphans.items()):
        text = ", ".join(f"{n} transactions of {db}" for db, n in sorted(files.items()))
        why = "a zombie uploaded them after another epoch took over: never merged, and gone with their epoch"
        items.append(GarbageItem(kind="orphans", name=f"epoch {epoch}: {text}", goes=False, reason="orphaned",
                                 message=why))  # fmt: skip
    return items
