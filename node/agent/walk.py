"""The walk of one tenant: attach, restore, stream, start, healthy, route; and backwards. Each part may be repeated."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from node.agent import memory, secretfiles
from node.agent.apps import Apps, BadApp
from node.agent.custody.custody import Custody
from node.agent.custody.errors import CustodyError
from node.agent.custody.release import To
from node.agent.custody.values import Claim, Progress
from node.agent.door import Door, DoorHandlers, NotConfirmed
from node.agent.gateway.errors import GatewayFailed
from node.agent.health import wait_healthy
from node.agent.places import Places, Rank
from node.agent.plan import fingerprint
from node.agent.ports import Container, Gateway, Route, Runtime, RuntimeFailed, Volume, Volumes
from node.agent.workerspec import image_of, worker_spec
from node.api import Assignment, Phase
from node.bucket.errors import BucketError

log = structlog.get_logger()

HEALTHY_S = 60.0
# Processors for a server that starts, as is known for startup CPU boosts: with the half of one that it may use later it
# would stand still for half of its start.
START_CPUS = 1.0
# A server that is asked to stop gets this long to finish what it is answering.
STOP_S = 25.0
DRAIN_S = 10.0
DRAIN_PAUSE_S = 0.05
LOG_LINES = 20


class NotHealthy(Exception):
    """The worker did not get healthy. The message has the last lines of its log."""


@dataclass(frozen=True)
class Parts:
    """What a walk works with; made once by the agent's app. `follow` sends those who wait after a tenant that left.

    `places` are for what computes on a walk up; `claims` for what goes before that and waits for the bucket, until
    there is a place for the rest.
    """

    custody: Custody
    runtime: Runtime
    volumes: Volumes
    gateway: Gateway
    apps: Apps
    uid_of: Callable[[str], int]
    runtime_dir: Path
    image_prefix: str
    follow: Callable[[str], None] = lambda _: None
    places: Places = field(default_factory=Places)
    claims: Places = field(default_factory=lambda: Places(2, 2))


async def both(first: Awaitable[None], second: Awaitable[None]) -> None:
    """Run two side by side to their ends, then raise what went wrong first in order."""
    for result in await asyncio.gather(first, second, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


class Walk:
    """One tenant's containers, door and route on this node. `phases` are those of the last walk up. `on_wait` hears how
    many are before it while it waits for its turn, None when that has come."""

    def __init__(self, tenant: str, parts: Parts, on_wait: Callable[[int | None], None] = lambda _: None) -> None:
        self.tenant = tenant
        self.parts = parts
        self._on_wait = on_wait
        self.claim: Claim | None = None
        self.volume: Volume | None = None
        self.worker: str = ""
        self.address: str = ""
        self.phases: list[Phase] = []
        self.started_at = 0.0
        self.warnings: tuple[str, ...] = ()
        self.orphans: Mapping[int, Mapping[str, int]] = {}
        self.unguarded = ""
        self.instance = ""
        self._leaving = ""
        self._made: tuple[Assignment, int] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._starting = False
        self._ends: set[str] = set()
        self._uid = 0
        self._door: Door | None = None
        self._ended = asyncio.Event()

    def told(self) -> tuple[str, ...]:
        """Its warnings, for the report: of its walk up, and of what a zombie uploaded after this node took over."""
        orphaned = (
            f"orphaned: epoch {epoch} has {n} transactions of {db} from after its end: a zombie's, never merged"
            for epoch, files in sorted(self.orphans.items())
            for db, n in sorted(files.items())
        )
        return (*self.warnings, *filter(None, [self.unguarded]), *orphaned)

    async def attach(self, want: Assignment, progress: Progress) -> Claim:
        """Claim the tenant and make its volume ready. Raises Overtaken, with what was claimed by then."""
        await self._check_image(want)
        self._fetching = asyncio.create_task(self._fetch(want))
        self.phases = []
        async with contextlib.AsyncExitStack() as claiming:  # not far ahead of what can go on then
            await claiming.enter_async_context(self.turn(want, Rank.CLAIM))
            claim = await self._take(want)
            async with self.turn(want, Rank.VOLUME):
                await claiming.aclose()
                return await self._prepare(want, claim, progress)

    @contextlib.asynccontextmanager
    async def turn(self, want: Assignment, rank: Rank, *, last: bool = False) -> AsyncIterator[None]:
        """Its turn among the tenants that are brought up here. One that moves waits for nobody: its requests are held.
        Raises Overtaken."""
        if want.moving:
            yield
            return
        began, waits = time.monotonic(), False

        def wait(before: int) -> None:
            nonlocal waits
            waits = True
            self._on_wait(before)

        pool = self.parts.claims if rank is Rank.CLAIM else self.parts.places
        async with pool.place(self.tenant, rank, wait, last=last):
            if waits:
                self.phases.append(Phase(name="turn", duration_s=round(time.monotonic() - began, 4)))
                self._on_wait(None)
            yield

    def withdraw(self) -> None:
        """If it waits for its turn, it does so no more: that raises Overtaken."""
        self.parts.claims.withdraw(self.tenant)
        self.parts.places.withdraw(self.tenant)

    async def _fetch(self, want: Assignment) -> None:
        """Have the app here by the time that it is needed; what is wrong with it is said then."""
        with contextlib.suppress(BadApp, BucketError, OSError):
            if want.spec.app:
                await asyncio.to_thread(self.parts.apps.fetch, want.spec.app)

    async def _take(self, want: Assignment) -> Claim:
        with self._timed("claim"):
            claim = self.claim = await self.parts.custody.claim(want)
        return claim

    async def _prepare(self, want: Assignment, claim: Claim, progress: Progress) -> Claim:
        self._uid = await self.user(want)
        with self._timed("prepare"):
            prepared = await self.parts.custody.prepare(claim, self._uid, want.spec.limits.disk, progress)
        claim = self.claim = prepared.claim  # a loss that was accepted may have left nothing to restore: born
        self.volume = prepared.volume
        self.warnings = prepared.warnings
        self.phases += prepared.phases
        await self._open_door()
        return claim

    async def _check_image(self, want: Assignment) -> None:
        """Before anything is claimed: what cannot run here should not move here."""
        image = image_of(want.spec.image, self.parts.image_prefix)
        if not await asyncio.to_thread(self.parts.runtime.image_exists, image):
            raise RuntimeFailed(
                f"{self.tenant}: this node has no image {image}; build or load it there, then run fleet up again",
                reason="no_image",
                retryable=True,
            )

    async def respec(self, want: Assignment) -> None:
        """Another rpo or retention takes effect: the sidecar is restarted with it; the worker is not touched."""
        if self.claim is not None:
            await self.parts.custody.respec(want)

    async def give_up(self, reason: str, message: str) -> None:
        """This node cannot go on with a tenant that it claimed: another may."""
        claim = self.claim
        if claim is not None:
            await self.parts.custody.give_up(claim, reason=reason, message=message)
            await self.detach()

    async def stream(self, claim: Claim) -> None:
        """Start the sidecar."""
        with self._timed("sidecar"):
            await self.parts.custody.stream(claim, self._uid)

    async def resume(self) -> None:
        """What a release that did not come to its end had begun is taken back before the worker starts again."""
        await self.parts.custody.resume(self.tenant)

    async def settle(self, claim: Claim, progress: Progress) -> None:
        """The first snapshot of every file is in the bucket, and the owner record says so."""
        with self._timed("snapshot"):
            settled = await self.parts.custody.settle(claim, progress)
        self.warnings += settled.warnings

    async def make(self, want: Assignment, session: int) -> None:
        """Make the worker's container without starting it: `start` finds it. What it lacks is what `start` raises."""
        try:
            self.worker = await self._create(want, session)
            self._made = (want, session)
        except (RuntimeFailed, BadApp, BucketError) as e:
            log.info("its worker is not made ahead", tenant=self.tenant, error=str(e))

    async def _create(self, want: Assignment, session: int) -> str:
        claim, volume = self._attached()
        if self._fetching is not None:
            await asyncio.wait({self._fetching})
        app = await asyncio.to_thread(self.parts.apps.fetch, want.spec.app) if want.spec.app else None
        spec = worker_spec(
            want,
            epoch=claim.epoch,
            session=session,
            uid=self._uid,
            volume=volume,
            app=app,
            secrets=await asyncio.to_thread(self._secrets, want),
            image_prefix=self.parts.image_prefix,
        )
        return await asyncio.to_thread(self.parts.runtime.create, spec)

    async def start(self, want: Assignment, session: int) -> None:
        """Start the worker and wait until it is healthy. Raises NotHealthy, RuntimeFailed, BadApp."""
        made = self._made == (want, session)
        if not made:
            await self.stop_worker()  # of a start that failed half-way
        self._made = None
        with self._timed("worker"):
            name = self.worker if made else await self._create(want, session)
            made_from = fingerprint(want.spec, want.restarts)
            await asyncio.to_thread(memory.remember_worker, self.parts.runtime_dir, self.tenant, made_from)
            self._ended.clear()
            self._ends.clear()
            self.worker, self._starting = name, True
            try:
                container = await asyncio.to_thread(self._begin, name, want)
            finally:
                self._starting = False
            self.instance = container.instance
            if self.instance in self._ends:
                self._ended.set()
        self.started_at = time.monotonic()
        self.address = f"{container.address}:{want.spec.port}"
        with self._timed("healthy"):
            await self._healthy(want, name)
            if not want.spec.secrets:  # not before: one that does not get healthy gives way to one that has some
                await asyncio.to_thread(secretfiles.remove, self.parts.runtime_dir, self.tenant)
            await asyncio.to_thread(self._allow, container, want.spec.limits.cpus)

    def _begin(self, name: str, want: Assignment) -> Container:
        container = self.parts.runtime.start(name)
        self._allow(container, max(START_CPUS, want.spec.limits.cpus))
        return container

    def _allow(self, container: Container, cpus: float) -> None:
        """What a server may compute is no reason to fail one that runs."""
        try:
            self.parts.runtime.allow(container, cpus)
        except RuntimeFailed as e:
            log.warning("its processors stay as they are", tenant=self.tenant, wanted=cpus, error=str(e))

    async def _healthy(self, want: Assignment, name: str) -> None:
        wrong = await wait_healthy(
            self.address, want.spec.health, timeout_s=HEALTHY_S, alive=lambda: not self._ended.is_set()
        )
        if wrong:
            lines = await asyncio.to_thread(self._last_lines, name)  # one that ended is no longer `worker`
            await asyncio.to_thread(self.parts.runtime.stop, name, STOP_S)
            self.worker = ""
            tail = f"; its last lines:\n{lines}" if lines else "; it logged nothing"
            raise NotHealthy(f"the server of {self.tenant} did not get healthy: {wrong}{tail}")

    def _secrets(self, want: Assignment) -> Path | None:
        if not want.spec.secrets:
            return None
        if want.secrets:
            return secretfiles.write(self.parts.runtime_dir, self.tenant, self._uid, want.secrets)
        # An agent that was restarted has no values: what is on tmpfs is still right.
        home = secretfiles.folder(self.parts.runtime_dir, self.tenant)
        if not all((home / name).is_file() for name in want.spec.secrets):
            raise RuntimeFailed(
                f"{self.tenant}: its secrets are not on this node any more; it starts once the controller sends them",
                reason="no_secrets",
                retryable=True,
            )
        return home

    def _last_lines(self, name: str) -> str:
        """The end of a worker's log, for an error that is worth more than the one of reading it."""
        try:
            lines = self.parts.runtime.logs(name, tail=LOG_LINES, since=None, follow=False)
            return "\n".join(line.decode(errors="replace").rstrip() for line in lines)[-4000:]
        except RuntimeFailed as e:
            return f"(its log cannot be read: {e})"

    async def route(self, want: Assignment) -> None:
        """Send requests to the worker."""
        await self._tell(self.parts.gateway.route, self.tenant, Route(self.address, want.token_sha256))

    async def hold(self, *, leaving: bool = False) -> None:
        """Let requests wait for the next route, which may be another node's if the tenant is leaving."""
        await self._tell(partial(self.parts.gateway.hold, leaving=leaving), self.tenant)

    async def forget(self) -> None:
        """The gateway finds out for itself who has the tenant now."""
        await self._tell(self.parts.gateway.forget, self.tenant)

    async def unroute(self, reason: str) -> None:
        """Answer 503."""
        await self._tell(self.parts.gateway.unroute, self.tenant, reason)

    async def _tell(self, call: Callable[..., None], *what: object) -> None:
        """A gateway that is away is told when it is back: it keeps what it was told. No tenant's walk waits for it."""
        try:
            await asyncio.to_thread(call, *what)
        except (GatewayFailed, RuntimeFailed) as e:
            log.warning("the gateway was not told", tenant=self.tenant, error=str(e))

    async def drain(self) -> None:
        """Wait, at most DRAIN_S, until no request is being answered."""
        for _ in range(int(DRAIN_S / DRAIN_PAUSE_S)):
            try:
                if not await asyncio.to_thread(self.parts.gateway.in_flight, self.tenant):
                    return
            except (GatewayFailed, RuntimeFailed) as e:
                log.warning("how many requests are being answered is not known", tenant=self.tenant, error=str(e))
                return
            await asyncio.sleep(DRAIN_PAUSE_S)

    async def stop_worker(self) -> None:
        """Stop and remove the worker; it is asked first."""
        await self.quit_worker()
        await self._remove_worker()

    async def quit_worker(self) -> None:
        """Stop the worker; its container is removed while the tenant is released."""
        self._made = None
        if self.worker:
            self._leaving, self.worker = self.worker, ""
        if self._leaving:  # until it is gone: what an engine refused is asked for again
            await asyncio.to_thread(self.parts.runtime.stop, self._leaving, STOP_S)

    async def _remove_worker(self) -> None:
        if self._leaving:
            await asyncio.to_thread(self.parts.runtime.remove, self._leaving)
            self._leaving = ""

    async def release(self, *, purge: bool, generation: int | None) -> None:
        """Confirm the last byte, stop the sidecar, give the record up. Raises Unconfirmed: nothing is lost then."""
        to: To = "purged" if purge else "released"
        await both(self._remove_worker(), self.parts.custody.release(self.tenant, to=to, generation=generation))
        await self.detach()

    async def take_back(self, want: Assignment, progress: Progress) -> int:
        """Hold again, without its worker, what an agent that died left unreleased: so its last byte is confirmed.

        Answers the tenant's epoch if it is this node's, else 0.
        """
        if self.claim is not None:
            return self.claim.epoch
        epoch, unreleased = await self.parts.custody.left(self.tenant)
        if not unreleased:
            return epoch
        try:
            self.phases = []
            claim = await self._prepare(want, await self._take(want), progress)
            await self.stream(claim)
        except BaseException:
            await self.detach()  # half held would look like nothing to confirm: the next try begins anew
            raise
        return claim.epoch

    async def detach(self) -> None:
        """Forget what this node keeps of a tenant that it no longer holds, but never its volume."""
        await self._let_go()
        await asyncio.to_thread(secretfiles.remove, self.parts.runtime_dir, self.tenant)

    async def _let_go(self) -> None:
        self.claim = None
        self.parts.custody.forget(self.tenant)
        if self._door is not None:
            await self._door.close()
            self._door = None

    async def kill(self, *, again: bool = False) -> None:
        """Nothing of this tenant runs here any more, at once: it is somebody else's. `again`: it may come up here anew,
        and its secrets stay for that: an agent that was restarted has them from nowhere else."""
        # First: a sidecar that is nobody's is not started again when it dies.
        await (self._let_go() if again else self.detach())
        containers = await asyncio.to_thread(self.parts.runtime.containers)
        for c in containers:
            if c.tenant == self.tenant:
                await asyncio.to_thread(self.parts.runtime.kill, c.name)
                await asyncio.to_thread(self.parts.runtime.remove, c.name)
        self.worker = self._leaving = ""
        self._made = None

    def is_worker(self, container: Container) -> bool:
        """Whether the container that ended is the worker that runs. One of the same name before it is history."""
        if container.name != self.worker:
            return False
        if self._starting:
            self._ends.add(container.instance)  # which one it was is known once the start is through
            return False
        return container.instance == self.instance

    def ended(self) -> float:
        """The worker ended by itself: answers how many seconds it ran."""
        self._ended.set()
        self.worker = ""
        return time.monotonic() - self.started_at

    async def adopt(self, want: Assignment, claim: Claim, volume: Volume, worker: Container | None) -> None:
        """Go on with containers that an earlier agent started; `worker` None: only the sidecar runs."""
        self.claim, self.volume = claim, volume
        self._uid = await self.user(want)
        if worker is not None:
            await asyncio.to_thread(self._allow, worker, want.spec.limits.cpus)  # it may have been on its way up
            self.worker, self.instance = worker.name, worker.instance
            self.address = f"{worker.address}:{want.spec.port}"
            self.started_at = time.monotonic()
        await self._open_door()

    async def user(self, want: Assignment) -> int:
        """The uid of the tenant's containers: the spec's, else one of its own on this node."""
        if want.spec.user is not None:
            return want.spec.user
        return await asyncio.to_thread(self.parts.uid_of, self.tenant)

    def _attached(self) -> tuple[Claim, Volume]:
        if self.claim is None or self.volume is None:
            raise RuntimeError(f"{self.tenant} is not attached")
        return self.claim, self.volume

    async def _open_door(self) -> None:
        _, volume = self._attached()
        if self._door is not None:
            await self._door.close()
        handlers = DoorHandlers(durable=self._durable, wake_at=self._wake_at, identity=self._identity)
        self._door = Door(volume.run, self._uid, handlers)
        await self._door.open()

    async def _durable(self) -> None:
        with self._doubts():
            await self.parts.custody.durable(self.tenant)

    @contextlib.contextmanager
    def _doubts(self) -> Iterator[None]:
        try:
            yield
        except CustodyError as e:
            raise NotConfirmed(str(e), reason=e.reason) from None
        except BucketError as e:
            raise NotConfirmed(f"{self.tenant}: {e}", reason=f"bucket_{e.code}") from None

    async def _wake_at(self, at: float | None) -> None:
        with self._doubts():
            await self.parts.custody.wake_at(self.tenant, at)

    def _identity(self) -> dict[str, Any]:
        claim = self.claim
        return {"tenant": self.tenant, "epoch": claim.epoch if claim else 0, "session": claim.session if claim else 0}

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.phases.append(Phase(name=name, duration_s=round(time.monotonic() - begin, 4)))
