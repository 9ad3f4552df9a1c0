"""Custody of this node's tenants: the one object through which the agent claims, restores, streams, confirms, releases.

The walk up:   claim → prepare → stream → settle → (worker, route);   a tenant that is born: claim → prepare → stream →
worker → settle in the background. The walk down: (unroute, drain, stop the worker) → release. After an agent's
restart: adopt. Every call may be repeated, and dying inside one is repaired by starting again with `claim`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from node.agent.custody import adopt as adopting
from node.agent.custody import claim as claiming
from node.agent.custody import collect as collecting
from node.agent.custody import durable as acknowledging
from node.agent.custody import points as history
from node.agent.custody import purge as deleting
from node.agent.custody import release as releasing
from node.agent.custody import restore as restoring
from node.agent.custody import settle as settling
from node.agent.custody import sidecar, supervise, take
from node.agent.custody import wake as waking
from node.agent.custody.collect import Collected, Survey
from node.agent.custody.context import Bounds, Context
from node.agent.custody.errors import Damaged, Lost, OwnedElsewhere, Refused
from node.agent.custody.held import HeldTenant, take_back, write_owner
from node.agent.custody.release import To
from node.agent.custody.values import (
    Claim,
    CustodyEvent,
    Prepared,
    Progress,
    ReplicaTarget,
    Replication,
    SessionView,
    Settled,
)
from node.agent.custody.watchdog import Limits
from node.agent.ports import Container, Runtime, Volumes
from node.api import Assignment, Points
from node.bucket import cas, keys
from node.bucket.errors import BucketError
from node.bucket.records import Fleet, Owner
from node.bucket.store import Store

log = structlog.get_logger()


class Custody:
    """Holds tenants for one node. All calls are coroutines of one event loop; blocking work goes to threads."""

    def __init__(
        self,
        store: Store,
        replica: ReplicaTarget,
        runtime: Runtime,
        volumes: Volumes,
        session: Callable[[], SessionView],
        runtime_dir: Path,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`runtime_dir` is on tmpfs: sidecars' configuration lives under it. `session` is asked anew at each use."""
        self._ctx = Context(store, replica, runtime, volumes, session, runtime_dir, now, monotonic, bounds or Bounds())
        self._limits = limits or Limits()
        self._held: dict[str, HeldTenant] = {}

    async def claim(self, a: Assignment) -> Claim:
        """Take the tenant by CAS of its owner record: same epoch if the volume here may go on, else epoch + 1.

        Idempotent: what this object holds already is answered again. Raises Refused (also for a tenant that is lost or
        damaged and whose loss is not accepted, reason `lost`, `damaged`), OwnedElsewhere, Lost, Damaged, Unconfirmed,
        and the store's errors.
        """
        held = self._held.get(a.tenant)
        if held is not None and held.claim.session == self._ctx.me.session:
            wanted = a.restore is not None and a.restore.id != held.owner.record.restore_id
            if wanted and a.restore and a.restore.id != held.claim.restore_id:
                message = f"{a.tenant}: release it before it is restored"
                raise Refused(a.tenant, message, reason="held", retryable=True)
            return held.claim
        self.forget(a.tenant)
        taken = await take.take(self._ctx, a)
        if taken.claim.session != self._ctx.me.session:
            # What it claimed may be another's already: nothing starts, and the next try claims it anew.
            message = f"{a.tenant}: this node's session ended while it was claimed; it is claimed again"
            raise Refused(a.tenant, message, reason="no_session", retryable=True)
        self._held[a.tenant] = taken
        return taken.claim

    async def prepare(self, claim: Claim, uid: int, disk_bytes: int, progress: Progress) -> Prepared:
        """Make the volume ready: kept, or fresh with every file restored to its cut and checked.

        Raises Lost, Damaged (both recorded in the owner record; it is not held any more), Refused (disk full, engine),
        OwnedElsewhere, Unconfirmed, and the store's errors. What failed for now may be repeated.
        """
        try:
            return await restoring.prepare(self._ctx, self._get(claim.tenant), uid, disk_bytes, progress)
        except (Lost, Damaged, OwnedElsewhere):
            self.forget(claim.tenant)
            raise

    async def stream(self, claim: Claim, uid: int) -> None:
        """Start the sidecar on this epoch's prefix; returns when its socket answers. Raises SidecarFailed, Refused."""
        held = self._get(claim.tenant)
        if held.volume is None:
            raise Refused(claim.tenant, f"{claim.tenant}: prepare it first", reason="unprepared", retryable=True)
        await self._take_back(held)
        await sidecar.start(self._ctx, held, held.volume, uid)

    async def resume(self, tenant: str) -> None:
        """Before the worker of a held tenant starts: after a release that did not come to its end, the record is made
        to say again that it is held, and the sidecar runs. Nothing to do otherwise.

        Raises OwnedElsewhere, Unconfirmed (what that release wrote may yet land), SidecarFailed, Refused.
        """
        held = self._get(tenant)
        await self._take_back(held)
        if held.sidecar is None and held.volume is not None and held.uid is not None:
            await sidecar.start(self._ctx, held, held.volume, held.uid)

    async def _take_back(self, held: HeldTenant) -> None:
        await take_back(self._ctx, held)
        if held.sidecar is None and held.volume is not None:
            await restoring.reopen(self._ctx, held.volume)

    async def settle(self, claim: Claim, progress: Progress | None = None) -> Settled:
        """Wait until every file is confirmed in this epoch's prefix; then marker, then CAS `data_epoch`, running.

        Of a tenant that is born it waits for the files to appear: call it in the background; `missing(tenant)` says
        which are not there. Cancel it freely, and before `release`. Raises Unconfirmed, OwnedElsewhere.
        """
        return await settling.settle(self._ctx, self._get(claim.tenant), progress)

    def missing(self, tenant: str) -> tuple[str, ...]:
        """Declared files that do not exist yet: a warning, not an error."""
        held = self._held.get(tenant)
        return held.missing if held else ()

    async def durable(self, tenant: str) -> None:
        """Return when everything committed before the call, in every declared file, is in the bucket and still ours.

        One round serves all who wait. Raises Unconfirmed (unknown) or OwnedElsewhere.
        """
        await acknowledging.durable(self._ctx, self._get(tenant))

    async def replication(self, tenant: str) -> Replication:
        """How far behind the bucket is, from the sidecar alone: no bucket request. Raises OwnedElsewhere: not held."""
        return await supervise.replication(self._ctx, self._get(tenant))

    async def release(self, tenant: str, *, to: To = "released", generation: int | None = None) -> None:
        """Give the tenant up cleanly. The worker is stopped before. Confirms the last byte of every file, stops the
        sidecar, records positions, CAS.

        Raises Unconfirmed with how much is not in the bucket; then it may be repeated, or taken back by `resume`.
        A tenant that is not held here: its record is marked if it is free, else OwnedElsewhere; nothing without one.
        """
        held = self._held.get(tenant)
        if held is None:
            await releasing.release_unheld(self._ctx, tenant, to, generation)
            return
        try:
            await releasing.release(self._ctx, held, to, generation)
        except OwnedElsewhere:
            await sidecar.kill(self._ctx, held)
            self.forget(tenant)
            raise
        self.forget(tenant)

    async def left(self, tenant: str) -> tuple[int, bool]:
        """Of a tenant that is not held here: the epoch that its record names this node for (0: it does not), and
        whether it was never released and its volume is here: then claim and stream it first, as its last bytes may be
        nowhere else. Raises the store's errors."""
        return await releasing.left(self._ctx, tenant)

    async def adopt(self, a: Assignment, containers: Sequence[Container], uid: int) -> Claim | None:
        """After an agent's restart, or in a new session of this machine: go on with a tenant that runs here.

        `containers` are those of this tenant. None: its record does not name this node, session and epoch; whatever
        runs of it must be killed. Raises Unconfirmed and the store's errors: not known, so kill nothing and repeat.
        The claim may not be settled yet: then call `settle`.
        """
        held = await adopting.adopt(self._ctx, a, containers, uid)
        if held is None:
            return None
        self._held[a.tenant] = held
        return held.claim

    async def resession(self, claim: Claim) -> Claim:
        """CAS a frozen tenant to the machine's new session, same epoch. Raises OwnedElsewhere: kill it; Unconfirmed."""
        held = self._get(claim.tenant)
        await adopting.resession(self._ctx, held)
        return held.claim

    async def give_up(self, claim: Claim, *, reason: str, message: str) -> None:
        """This node cannot go on (disk full, no image): release if there is anything of its own to confirm, else CAS
        released, so that others try. Raises Unconfirmed, OwnedElsewhere."""
        held = self._get(claim.tenant)
        if held.sidecar is not None and (held.claim.settled or not held.sources):
            await self.release(claim.tenant)
            return
        await sidecar.kill(self._ctx, held)
        await write_owner(self._ctx, held, state="released", reason=reason, message=message)
        self.forget(claim.tenant)

    async def observe(self, claim: Claim, generation: int) -> None:
        """Record that `generation` has been carried out. Raises OwnedElsewhere, Unconfirmed."""
        held = self._get(claim.tenant)
        if held.owner.record.observed_generation < generation:
            await write_owner(self._ctx, held, observed_generation=generation)
        held.claim = replace(held.claim, generation=generation)

    async def wake_at(self, tenant: str, at: float | None) -> None:
        """Record when the tenant wants to run next (unix seconds), now or with the next write of its record, which is
        not far: many wishes are few writes. Raises OwnedElsewhere, Unconfirmed."""
        await waking.wake_at(self._ctx, self._get(tenant), at)

    async def respec(self, a: Assignment) -> bool:
        """Stream with another rpo or retention from now on: the sidecar is restarted if they changed. True if so.

        Raises OwnedElsewhere (not held), Refused.
        """
        held = self._get(a.tenant)
        if (held.claim.rpo_s, held.claim.retention_s) == (a.spec.rpo, a.spec.retention):
            return False
        held.claim = replace(held.claim, rpo_s=a.spec.rpo, retention_s=a.spec.retention)
        await sidecar.reconfigure(self._ctx, held, self._limits)
        return True

    def restored(self, tenant: str) -> str | None:
        """The id of the last restore that the tenant's record says was carried out."""
        held = self._held.get(tenant)
        return held.owner.record.restore_id if held else None

    def held(self) -> tuple[Claim, ...]:
        """Every claim that this object holds."""
        return tuple(h.claim for h in self._held.values())

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant in memory: after it was ousted and killed."""
        held = self._held.pop(tenant, None)
        if held is not None:
            sidecar.detach(held)
            if held.waking is not None:
                held.waking.cancel()

    async def watch(self, interval_s: float = 300.0) -> AsyncGenerator[CustodyEvent, None]:
        """Runs for ever: one LIST of owners an interval for all tenants; yields `ousted` when a record is not ours."""
        while True:
            await asyncio.sleep(interval_s)
            if not self._held:
                continue
            try:
                events = await supervise.ousted(self._ctx, self._held.values)
            except BucketError:
                continue  # not known: the next interval asks again
            for event in events:
                yield event

    async def supervise(self, interval_s: float = 5.0) -> AsyncGenerator[CustodyEvent, None]:
        """Runs for ever: asks each sidecar where it is, restarts those that died or are stuck, yields what happened.

        Tenants are looked at side by side: one that hangs delays no other.
        """
        events: asyncio.Queue[CustodyEvent] = asyncio.Queue()
        looking: dict[str, asyncio.Task[None]] = {}

        async def ask(held: HeldTenant) -> None:
            try:
                for event in await supervise.look(self._ctx, held, self._limits):
                    events.put_nowait(event)
            except Exception:
                log.exception("a look at a sidecar failed", tenant=held.tenant)

        try:
            while True:
                for name, held in list(self._held.items()):
                    if name not in looking or looking[name].done():
                        looking[name] = asyncio.create_task(ask(held))
                until = self._ctx.monotonic() + interval_s
                while (left := until - self._ctx.monotonic()) > 0:
                    try:
                        yield await asyncio.wait_for(events.get(), left)
                    except TimeoutError:
                        break
                looking = {name: task for name, task in looking.items() if not task.done()}
        finally:
            for task in looking.values():
                task.cancel()

    async def sidecar_ended(self, container: Container) -> CustodyEvent | None:
        """The engine says that a sidecar ended: start it again at once if its tenant is still streaming."""
        held = self._held.get(container.tenant)
        if held is None or held.sidecar is None or held.sidecar.name != container.name or not self._live():
            return None
        if self._ctx.monotonic() < held.sidecar.watch.not_before:
            return None  # again, and so soon: the next look restarts it
        how = "out of memory" if container.oom_killed else f"exit code {container.exit_code}"
        return await supervise.restart(self._ctx, held, self._limits, f"it ended ({how})")

    async def points(self, tenant: str) -> Points:
        """The moments that a tenant can be restored to, from a LIST per epoch and a HEAD per change."""
        return await self._ctx.on_store(history.points, self._ctx.store, tenant)

    async def purge(self, tenant: str, epoch: int) -> tuple[int, bool]:
        """Delete the data of a tombstoned tenant, in batches, re-reading the record before each: (deleted, done).

        Raises Refused unless the record says purged at this epoch, and the store's errors.
        """
        return await self._ctx.on_store(deleting.purge, self._ctx.store, tenant, epoch)

    async def survey(self, tenant: str, retention_s: float) -> Survey:
        """What a tenant's epochs hold, what may go, and what a zombie left. Nothing is deleted.

        Of a tenant that this node holds, or held last. Raises Refused (its record says otherwise), the store's errors.
        """
        args = (self._ctx.store, tenant, self._ctx.me, retention_s, self._ctx.now())
        return await self._ctx.on_store(collecting.survey, *args)

    async def collect(self, tenant: str, found: Survey) -> Collected:
        """Delete what a survey condemned, re-reading the owner record before each batch. Repeat it until it is done.

        Raises Refused as soon as the record names somebody else, and the store's errors.
        """
        return await self._ctx.on_store(collecting.collect, self._ctx.store, tenant, self._ctx.me, found)

    async def settled(self, tenant: str) -> bool:
        """Whether a tenant's data is somewhere that its record names, or was purged. Raises the store's errors."""
        found = await self._ctx.on_store(cas.read, self._ctx.store, keys.owner(tenant), Owner)
        if found is None:
            return False
        record = found.record
        return record.state == "purged" or (record.epoch == record.data_epoch and record.state not in claiming.DOWN)

    async def retention_s(self) -> float:
        """The fleet's retention, for a tenant whose own is not known here. Raises the store's errors."""
        found = await self._ctx.on_store(cas.read, self._ctx.store, keys.FLEET, Fleet)
        return float("inf") if found is None else found.record.retention_s

    def close(self) -> None:
        """Let go of the threads; what they are doing is not waited for."""
        self._ctx.store_threads.shutdown(wait=False, cancel_futures=True)
        self._ctx.engine_threads.shutdown(wait=False, cancel_futures=True)

    def _live(self) -> bool:
        return self._ctx.session().live()

    def _get(self, tenant: str) -> HeldTenant:
        held = self._held.get(tenant)
        if held is None:
            raise OwnedElsewhere(tenant, f"{tenant}: this node does not hold it", node="", epoch=0)
        return held
