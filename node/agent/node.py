"""This machine's tenants together: what the API offers, adoption, and what happens to all of them at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import structlog

from node.agent import memory
from node.agent.custody.errors import CustodyError, OwnedElsewhere, Refused, Unconfirmed
from node.agent.custody.values import CustodyEvent
from node.agent.ports import Container, RuntimeFailed, Volume
from node.agent.report import Board
from node.agent.server import Fault
from node.agent.tenant import Tenant
from node.agent.walk import Parts
from node.api import FENCES, Assignment, GarbageReport, NodeReport, Points, PurgeReport, TenantReport
from node.bucket.errors import BadRecord, BucketError
from node.bucket.records import Capacity

log = structlog.get_logger()

# Releasing waits for the bucket. When no tenant was released for so long, more than one takes at its worst, the guard
# freezes what is left, and the disk still has it.
RELEASE_S = 90.0
ADOPT_TRIES = 10


async def _untidy(tenant: str, dry_run: bool) -> GarbageReport:
    raise Fault(503, "starting", f"this node cannot look after {tenant} yet; try again", retryable=True)


@dataclass(frozen=True)
class Head:
    """What a report says of the machine itself."""

    node: str
    gateway_url: str
    capacity: Capacity


@dataclass
class Node:
    """Everything here runs on the agent's event loop. `session` is the number of the session that the guard holds."""

    head: Head
    parts: Parts
    session: Callable[[], int]
    render_metrics: Callable[[], bytes] = lambda: b""
    on_restored: Callable[[float, int], None] = lambda _s, _b: None
    on_fenced: Callable[[str], None] = lambda _: None
    tidy: Callable[[str, bool], Awaitable[GarbageReport]] = _untidy
    fenced: str = ""
    adopted: bool = False
    leaving: bool = False
    tenants: dict[str, Tenant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.board = Board(time.time, self._report)

    def _report(self, version: int, tenants: tuple[TenantReport, ...]) -> NodeReport:
        return NodeReport(
            node=self.head.node,
            session=self.session(),
            version=version,
            fenced=bool(self.fenced),
            reason=self.fenced,
            capacity=self.head.capacity,
            gateway_url=self.head.gateway_url,
            tenants=tenants,
        )

    # ---- the API

    async def assign(self, want: Assignment) -> TenantReport:
        """Take up what is wanted of a tenant."""
        if not self.adopted:
            raise Fault(503, "starting", "this node is still taking up what runs on it; try again", retryable=True)
        if self.leaving:
            raise Fault(503, "stopping", "this node leaves and takes up nothing; another one may", retryable=True)
        tenant = self._tenant(want.tenant)
        async with tenant.assigning:
            if tenant.want is None or want.generation >= tenant.want.generation:  # not one that was overtaken
                await asyncio.to_thread(memory.remember, self.parts.runtime_dir, want)
            return tenant.assign(want)

    async def read(self, after: int, wait_s: float) -> NodeReport:
        """The node's report once it is past a version."""
        return await self.board.read(after, wait_s)

    async def points(self, tenant: str) -> Points:
        """The moments a tenant can be restored to."""
        return await self.parts.custody.points(tenant)

    async def purge(self, tenant: str, epoch: int) -> PurgeReport:
        """Delete the data of a tombstoned tenant: in the bucket, then its folders here."""
        try:
            deleted, done = await self.parts.custody.purge(tenant, epoch)
            held = self.tenants.get(tenant)
            done = done and (held is None or held.walk.claim is None)  # else the name was born again meanwhile
            if done:
                await asyncio.to_thread(self._wipe, tenant)
        except Refused as e:
            raise Fault(409, e.reason, str(e), retryable=e.retryable) from None
        except RuntimeFailed as e:
            raise Fault(503, e.reason, str(e), retryable=e.retryable) from None
        if done:
            await asyncio.to_thread(memory.forget, self.parts.runtime_dir, tenant)
        return PurgeReport(deleted=deleted, done=done)

    def _wipe(self, tenant: str) -> None:
        self.parts.volumes.discard(tenant)
        for volume in self.parts.volumes.aside():
            if volume.tenant == tenant:
                self.parts.volumes.drop_aside(volume.path)

    async def collect(self, tenant: str, *, dry_run: bool) -> GarbageReport:
        """Delete what of a tenant is garbage here, or say what would go."""
        try:
            return await self.tidy(tenant, dry_run)
        except Refused as e:
            raise Fault(409, e.reason, str(e), retryable=e.retryable) from None
        except RuntimeFailed as e:
            raise Fault(503, e.reason, str(e), retryable=e.retryable) from None

    def logs(
        self, tenant: str, container: str, *, tail: int | None, since: float | None, follow: bool
    ) -> Iterator[bytes]:
        """Log lines of one of the tenant's containers. Raises Fault when it has none here."""
        for c in self.parts.runtime.containers():
            if c.tenant == tenant and c.role == container:
                lines = self.parts.runtime.logs(c.name, tail=tail, since=since, follow=follow)
                return (line if line.endswith(b"\n") else line + b"\n" for line in lines)
        raise Fault(404, "no_container", f"{tenant} has no {container} container on this node")

    def metrics(self) -> bytes:
        """Prometheus text."""
        return self.render_metrics()

    def ready(self) -> str:
        """Empty when the node works, else why not."""
        return self.fenced or ("" if self.adopted else "taking up what runs here")

    # ---- all at once

    def _tenant(self, name: str) -> Tenant:
        found = self.tenants.get(name)
        if found is None:
            found = self.tenants[name] = Tenant(name, self.parts, self.board, self.session, self.on_restored)
        return found

    async def adopt(self) -> None:
        """Go on with what an earlier agent left running; what nobody answers for is killed."""
        containers = await asyncio.to_thread(self.parts.runtime.containers)
        wants = await asyncio.to_thread(memory.recall, self.parts.runtime_dir)
        by_tenant: dict[str, list[Container]] = {}
        for c in containers:
            by_tenant.setdefault(c.tenant, []).append(c)
        names = sorted(set(by_tenant) | set(wants))
        await asyncio.gather(*(self._adopt(n, wants.get(n), by_tenant.get(n, [])) for n in names))
        self.adopted = True
        self.board.touch()
        with contextlib.suppress(RuntimeFailed):  # then the listener of deaths looks when the engine is back
            await self._sweep()  # what ended while it was taken up

    async def _adopt(self, name: str, want: Assignment | None, containers: list[Container]) -> None:
        tenant = self._tenant(name)
        claim = None
        running = [c for c in containers if c.running]
        tries = 0
        while want is not None and running:
            try:
                claim = await self.parts.custody.adopt(want, running, await tenant.walk.user(want))
                break
            except BadRecord as e:
                log.error("not adopted", tenant=name, error=str(e))
                break
            except (CustodyError, BucketError, RuntimeFailed) as e:
                # Unknown is not no: as long as the bucket does not answer, the guard's deadline decides.
                log.warning("cannot tell yet whether to adopt", tenant=name, error=str(e))
                tries += not isinstance(e, Unconfirmed | BucketError)
                if tries >= ADOPT_TRIES:
                    break  # what is wrong here is its own: it begins anew, and the others do not wait for it
                await asyncio.sleep(1)
        volume = await self._volume(name) if claim is not None else None
        if want is None or claim is None or volume is None:
            await tenant.walk.kill(again=want is not None)
            if want is not None:
                tenant.assign(want)
            return
        worker = next((c for c in running if c.role == "worker"), None)
        await tenant.adopt(want, claim, volume, worker)
        log.info("adopted", tenant=name, epoch=claim.epoch)

    async def _volume(self, name: str) -> Volume | None:
        try:
            return await asyncio.to_thread(self.parts.volumes.find, name)
        except RuntimeFailed as e:
            log.error("not adopted", tenant=name, error=str(e))
            return None

    async def freeze(self, reason: str) -> None:
        """The guard froze everything."""
        if reason in FENCES and reason != self.fenced:
            self.on_fenced(reason)
        self.fenced = reason
        self.board.touch()
        await asyncio.gather(*(t.freeze(reason) for t in self.tenants.values()))

    async def thaw(self) -> None:
        """The guard thawed everything."""
        self.fenced = ""
        self.leaving = False
        self.board.touch()
        await asyncio.gather(*(t.thaw() for t in self.tenants.values()))

    async def resession(self) -> None:
        """A new session: each tenant's record is taken into it, or what runs of it is killed while it is frozen."""
        await asyncio.gather(*(self._resession(t) for t in self.tenants.values()))

    async def _resession(self, tenant: Tenant) -> None:
        while (claim := tenant.walk.claim) is not None:
            try:
                tenant.walk.claim = await self.parts.custody.resession(claim)
                break
            except OwnedElsewhere as e:
                log.warning("another node has it now", tenant=tenant.name, owner=e.node)
                await tenant.ousted()
            except BadRecord as e:  # not known to be ours, and waiting does not help
                log.error("not taken into the new session", tenant=tenant.name, error=str(e))
                await tenant.ousted()
            except (CustodyError, BucketError) as e:
                log.warning("not in the new session yet", tenant=tenant.name, error=str(e))
                await asyncio.sleep(1)
        async with tenant.ousting:
            pass  # what is not held any more may still be dying: until it is dead nothing may be thawed

    async def release(self) -> list[str]:
        """The node stops: every tenant down in order, side by side. Answers why some are not."""
        self.leaving = True  # one that is new here would be killed as soon as the others are released
        left = []
        pending = {asyncio.create_task(t.release_now(), name=t.name) for t in self.tenants.values()}
        while pending:
            done, pending = await asyncio.wait(pending, timeout=RELEASE_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                left += [f"{task.get_name()}: not released within {RELEASE_S:g} s" for task in pending]
                break
            left += [why for task in done if (why := task.result())]
        return left

    async def close(self) -> None:
        """The agent alone stops: tenants run on."""
        await asyncio.gather(*(t.close() for t in self.tenants.values()))

    # ---- what happens by itself

    async def follow_custody(self, events: AsyncIterator[CustodyEvent]) -> None:
        """Act on what custody saw, for ever."""
        async for event in events:
            log.warning(event.kind, tenant=event.tenant, message=event.message)
            tenant = self.tenants.get(event.tenant)
            match event.kind:
                case "ousted":
                    if tenant is not None:
                        await tenant.ousted()
                case "foreign_writer":
                    if tenant is not None:
                        await tenant.ousted("foreign_writer", event.message)
                case "behind" | "caught_up":
                    self.board.update(event.tenant, behind=event.kind == "behind")
                case "volume_stopped":
                    if tenant is not None:
                        tenant.volume_stopped()
                case "unguarded" | "guarded":
                    if tenant is not None:
                        tenant.walk.unguarded = event.message if event.kind == "unguarded" else ""
                        self.board.update(event.tenant, warnings=tenant.walk.told())
                case "sidecar_restarted":
                    pass  # counted where it is restarted; the log has it

    def follow_deaths(self, loop: asyncio.AbstractEventLoop) -> None:
        """A thread that hears of containers' ends from the engine, and asks again when the engine went away."""

        def listen() -> None:
            while True:
                try:
                    for container in self.parts.runtime.deaths():
                        asyncio.run_coroutine_threadsafe(self._ended(container), loop)
                except RuntimeFailed as e:
                    log.warning("engine does not answer", error=str(e))
                time.sleep(1)
                # What ended while nobody listened.
                asyncio.run_coroutine_threadsafe(self._look_again(), loop)

        threading.Thread(target=listen, name="deaths", daemon=True).start()

    async def _ended(self, container: Container) -> None:
        tenant = self.tenants.get(container.tenant)
        if tenant is None:
            return
        if container.role == "worker":
            tenant.worker_ended(container)
        elif container.role == "sidecar":
            event = await self.parts.custody.sidecar_ended(container)
            if event is not None:
                log.warning(event.kind, tenant=event.tenant, message=event.message)

    async def _look_again(self) -> None:
        try:
            await asyncio.to_thread(self.parts.runtime.ensure)  # an engine that was restarted, or a flushed firewall
            await self._sweep()
        except RuntimeFailed:
            return

    async def _sweep(self) -> None:
        """Act on what ended unheard."""
        containers = await asyncio.to_thread(self.parts.runtime.containers)
        for c in containers:
            if not c.running and c.role != "job":
                await self._ended(c)
        names = {c.name for c in containers}
        for t in self.tenants.values():
            if t.walk.worker and t.walk.worker not in names and t.actual.worker:
                gone = Container(t.walk.worker, t.name, "worker", 0, 0, 0, running=False, instance=t.walk.instance)
                t.worker_ended(gone)
