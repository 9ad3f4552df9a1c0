"""The product's guard as a process of a simulated machine, and what keeps guard and agent alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from node.agent.custody.guard import Guard, Place
from node.agent.custody.lease import Machine as Described
from node.agent.custody.view import View
from node.agent.ports import Freezer
from node.bucket.records import Capacity
from tests.sim import engine
from tests.sim.process import Process, process
from tests.sim.store import Client

if TYPE_CHECKING:
    from tests.sim.machine import Machine

PATIENCE_S = 4.0
WIRE_S = 0.002
CAPACITY = Capacity(memory_bytes=8 << 30, cpus=8.0, disk_bytes=64 << 30)


def spawn(m: Machine, name: str) -> Process:
    """A new process of a machine."""
    p = Process(m.world.scheduler, m.clock, f"{m.name}/{name}", m.world.crashed)
    p.owner = m
    m.processes.append(p)
    if m.paused:
        p.pause()
    return p


def here() -> Machine:
    """The machine that the running process is on."""
    return cast("Machine", process().owner)


class GuardProcess:
    """One guard from its start to its end."""

    def __init__(self, m: Machine) -> None:
        self.machine = m
        self.process = spawn(m, "guard")
        self.server: LinkServer | None = None
        self.left = False
        self.guard: Guard | None = None
        m.guard = self
        self.process.start(self._main())

    async def _main(self) -> None:
        m = self.machine
        place = Place(engine.ROOT / m.name / "run", engine.ROOT / m.name / "state")
        described = Described(m.name, f"https://{m.name}", CAPACITY, {"zone": m.zone}, "sim")
        self.guard = Guard(
            described, m.world.founding, lambda: Client(m.world.network, m.name, PATIENCE_S), cast(Freezer, m), place,
            lambda: (_ for _ in ()).throw(NotImplementedError), now=m.clock.now,
        )  # fmt: skip
        await self.guard.run()
        self.left = True
        m.world.note(f"{m.name}: guard has left")
        m.world.left(m)

    def die(self) -> None:
        """kill -9."""
        self.process.kill()
        if self.machine.guard is self:
            self.machine.guard = None


class LinkServer:
    """The guard's end of the link to its agent: lines in order, a moment later."""

    def __init__(self, runtime_dir: Path, current: Callable[[], View], heard: Callable[[dict[str, Any]], None]) -> None:
        self._m = here()
        self._current = current
        self._process = process()
        self.heard = heard

    async def start(self) -> None:
        """Listen: an agent that lives connects soon."""
        if self._m.guard is not None:
            self._m.guard.server = self
        self._m.world.scheduler.after(0.05, lambda: connect(self._m))

    def push(self) -> None:
        """Tell the agent the current view."""
        agent = self._m.agent
        if agent is not None and agent.link is not None and agent.connected is self._m.guard:
            view, link = self._current(), agent.link
            self._m.world.scheduler.after(WIRE_S, lambda: agent.process.call_soon(link.take, view))

    def say(self, message: dict[str, Any]) -> None:
        """A line of the agent's arrives."""
        self._process.call_soon(self.heard, message)

    async def close(self) -> None:
        """Hang up."""


def connect(m: Machine) -> None:
    """Agent and guard find each other, if both live."""
    guard, agent = m.guard, m.agent
    if guard is None or agent is None or guard.server is None or agent.link is None or agent.connected is guard:
        return
    agent.connected = guard
    guard.process.call_soon(guard.server.push)
    agent.process.call_soon(agent.link.say_again)


class Keeper:
    """The guard's hold on its agent; who starts whom is the world's."""

    def __init__(self, agent_lock: Path, spawn_agent: Callable[[], Any], *, silence_s: float) -> None:
        self._m = here()
        self._spoken_at = self._m.clock.now()

    def heard(self) -> None:
        """The agent lives."""
        self._spoken_at = self._m.clock.now()

    def silent_s(self) -> float:
        """Seconds since an agent said anything."""
        return self._m.clock.now() - self._spoken_at

    async def run(self) -> None:
        """See to it that there is an agent, until cancelled."""
        self._m.world.tend(self._m)
        await asyncio.get_running_loop().create_future()

    async def reload(self) -> None:
        """A new agent."""
        if self._m.agent is not None:
            self._m.agent.die()
        self._m.world.tend(self._m)

    async def end(self, patience_s: float = 5.0) -> None:
        """No agent any more."""
        if self._m.agent is not None:
            self._m.agent.die()
