"""The product's agent as a process of a simulated machine: custody, tenants and walks are the real ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from node.agent import app
from node.agent.custody.custody import Custody
from node.agent.custody.errors import CustodyError
from node.agent.custody.link import GuardLink
from node.agent.custody.values import Credentials, ReplicaTarget
from node.agent.custody.view import View
from node.agent.door import DoorHandlers
from node.agent.node import Head, Node
from node.agent.ports import Gateway, Runtime, Volumes
from node.agent.walk import Parts
from node.api import Assignment
from node.bucket.errors import BucketError
from tests.sim import engine
from tests.sim.guard import CAPACITY, WIRE_S, GuardProcess, connect, here, spawn
from tests.sim.store import Client

if TYPE_CHECKING:
    from tests.sim.machine import Container, Machine

PATIENCE_S = 10.0
WATCH_S = 30.0
SUPERVISE_S = 15.0
COLLECT_S = 12.0


class Link(GuardLink):
    """The agent's end of the link."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(engine.ROOT / machine.name / "run", None)
        self._m = machine

    async def first(self) -> None:
        """Wait for the guard's first word."""
        await self._first.wait()

    def take(self, view: View) -> None:
        """A line of the guard's arrives."""
        self._take(view)

    async def beat(self) -> None:
        """Say now and then that it thinks."""
        await self._beat()

    def say_again(self) -> None:
        """Connected."""
        self._say_again()

    def _send(self, message: dict[str, Any]) -> None:
        guard = self._m.guard
        if guard is not None and guard.server is not None:
            self._m.world.scheduler.after(WIRE_S, lambda: guard.server.say(message))


class Door:
    """A tenant's way to its agent; it dies with it."""

    def __init__(self, folder: Path, uid: int, handlers: DoorHandlers) -> None:
        self._tenant = folder.parent.name
        self._handlers = handlers

    async def open(self) -> None:
        """Listen."""
        agent = here().agent
        if agent is not None:
            agent.doors[self._tenant] = self._handlers

    async def close(self) -> None:
        """Hang up."""
        agent = here().agent
        if agent is not None and agent.doors.get(self._tenant) is self._handlers:
            del agent.doors[self._tenant]


class AgentProcess:
    """One agent from its start to its death."""

    def __init__(self, m: Machine) -> None:
        self.machine = m
        self.connected: GuardProcess | None = None
        self.link: Link | None = None
        self.node: Node | None = None
        self.custody: Custody | None = None
        self.doors: dict[str, DoorHandlers] = {}
        self.process = spawn(m, "agent")
        m.agent = self
        self.process.start(self._main())

    @property
    def answers(self) -> bool:
        """Whether its API answers."""
        return self.process.alive and not self.process.paused and self.node is not None

    async def _main(self) -> None:
        m = self.machine
        link = self.link = Link(m)
        connect(m)
        await link.first()
        store = Client(m.world.network, m.name, PATIENCE_S)
        target = ReplicaTarget("sim", "", None, "sim", lambda _prefix: Credentials("", ""))
        runtime, volumes, gateway = engine.Runtime(m), engine.Volumes(m), engine.Gateway(m)
        folder = engine.ROOT / m.name / "run"
        self.custody = Custody(
            store, target, cast(Runtime, runtime), cast(Volumes, volumes), lambda: link.session, folder,
            now=m.clock.now, monotonic=m.clock.now, bounds=m.world.bounds,
        )  # fmt: skip
        parts = Parts(
            custody=self.custody, runtime=cast(Runtime, runtime), volumes=cast(Volumes, volumes),
            gateway=cast(Gateway, gateway), apps=cast(Any, None), uid_of=lambda _: 1000, runtime_dir=folder,
            image_prefix="sim",
        )  # fmt: skip
        self.node = Node(Head(m.name, f"https://{m.name}", CAPACITY), parts, session=lambda: link.session.session)
        made = SimpleNamespace(link=link, node=self.node, runtime=runtime, gateway=gateway, custody=self.custody)
        await asyncio.gather(
            app.follow_session(cast(app.Machine, made)),
            self.node.follow_custody(self.custody.watch(WATCH_S)),
            self.node.follow_custody(self.custody.supervise(SUPERVISE_S)),
            link.beat(),
            self._collect(self.custody),
        )

    async def _collect(self, custody: Custody) -> None:
        while True:
            await asyncio.sleep(COLLECT_S)
            for claim in custody.held():
                try:
                    found = await custody.survey(claim.tenant, self.machine.world.retention_s)
                    gone = await custody.collect(claim.tenant, found)
                except (CustodyError, BucketError):
                    continue
                if gone.objects:
                    self.machine.world.note(f"{self.machine.name}: collected {gone.objects} objects of {claim.tenant}")

    def hear_end(self, c: Container) -> None:
        """The engine tells of a container's end."""
        node, process = self.node, self.process
        if node is not None and node.adopted:
            process.call_soon(lambda: process.create_task(node._ended(engine.described(c))))

    def die(self) -> None:
        """kill -9; containers and routes live on."""
        self.process.kill()
        if self.machine.agent is self:
            self.machine.agent = None

    async def assign(self, want: Assignment) -> None:
        """What a controller sends."""
        if self.node is not None:
            await self.node.assign(want)
