"""One machine: its power, clock and disk, what is on its tmpfs, the cage that a guard freezes, and its containers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from node.agent.custody.sessionfile import Saved
from node.agent.ports import Role
from node.api import Assignment
from tests.sim.clock import Clock
from tests.sim.disk import Disk, Volume
from tests.sim.process import Process

if TYPE_CHECKING:
    from tests.sim.sidecar import Litestream
    from tests.sim.world import World


WAKE_S = 0.05


@dataclass
class Container:
    """One container; while it stands still, what would happen in it waits."""

    machine: Machine
    name: str
    tenant: str
    role: Role
    epoch: int
    session: int
    generation: int
    volume: Volume
    instance: str
    rpo_s: float = 0.0
    running: bool = False
    ended: bool = False
    escaped: bool = False  # born outside of the frozen cage
    litestream: Litestream | None = None
    waiting: list[Callable[[], None]] = field(default_factory=list)

    @property
    def moves(self) -> bool:
        """Whether its processes execute instructions right now."""
        m = self.machine
        return self.running and m.on and not m.paused and not m.waking and (self.escaped or not m.frozen)

    def do(self, what: Callable[[], None]) -> None:
        """Something happens inside: now, or when it moves again, or never."""
        if self.moves:
            what()
        elif self.running:
            self.waiting.append(what)

    def go_on(self) -> None:
        """It moves again."""
        while self.waiting and self.moves:
            self.waiting.pop(0)()


@dataclass
class Tmpfs:
    """What ends with the boot."""

    saved: Saved | None = None
    assignments: dict[str, Assignment] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)


@dataclass
class Machine:
    """Everything of one machine. `on`: it has power; `paused`: it stands still as a whole."""

    world: World
    name: str
    clock: Clock
    zone: str = ""
    disk: Disk = field(default_factory=Disk)
    run: Tmpfs = field(default_factory=Tmpfs)
    boot: int = 1
    on: bool = True
    paused: bool = False
    waking: bool = False
    frozen: bool = False
    containers: dict[str, Container] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    guard: Any = None
    agent: Any = None
    processes: list[Process] = field(default_factory=list)
    full: bool = False
    engine_s: float = 0.5
    image: Disk = field(default_factory=Disk)

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        return f"{self.name}-boot{self.boot}"

    # ---- the cage

    def freeze(self) -> None:
        """Everything in the cage stands still."""
        if not self.frozen:
            self.world.note(f"{self.name}: tenants frozen")
        self.frozen = True

    def thaw(self) -> None:
        """Everything in it goes on."""
        if self.frozen:
            self.world.note(f"{self.name}: tenants thawed")
            self.frozen = False
            self.world.judge.running(f"thaw on {self.name}")
            self._go_on()

    def kill_all(self) -> None:
        """The guard kills everything in the cage."""
        for c in list(self.containers.values()):
            if not c.escaped:
                self.end(c)

    def _go_on(self) -> None:
        for c in list(self.containers.values()):
            c.go_on()

    # ---- containers

    def begin(self, c: Container) -> None:
        """A created container starts. It is born into the cage, frozen or not."""
        if c.running or c.ended or not self.on:
            return
        c.running = True
        c.escaped = self.frozen and self.world.rules.late_start_escapes
        self.world.note(f"{self.name}: {c.name} of epoch {c.epoch} started{' frozen' if not c.moves else ''}")
        self.world.judge.started(c)
        if c.litestream is not None:
            c.do(c.litestream.start)

    def stop(self, c: Container) -> None:
        """Its processes are gone, the container is still there."""
        named = self.containers.get(c.name) is c
        self.end(c)
        if named:
            self.containers[c.name] = c

    def end(self, c: Container) -> None:
        """It is dead: what waited in it never happens."""
        died, c.running, c.ended = c.running, False, True
        c.waiting.clear()
        if c.litestream is not None:
            c.litestream.died()
        if self.containers.get(c.name) is c:
            del self.containers[c.name]
        if died:
            self.world.note(f"{self.name}: {c.name} of epoch {c.epoch} ended")
            if self.agent is not None:
                self.agent.hear_end(c)

    def find(self, tenant: str, role: Role) -> Container | None:
        """A tenant's container that runs."""
        return next((c for c in self.containers.values() if c.tenant == tenant and c.role == role and c.running), None)

    # ---- power and pauses

    def pause(self, *, clock_stops: bool) -> None:
        """Everything on it stands still."""
        self.paused = True
        if clock_stops:
            self.clock.stop()
        for p in self.processes:
            p.pause()

    def resume(self) -> None:
        """It goes on as if nothing had been."""
        if not self.paused:
            return
        self.paused = False
        self.clock.go_on()
        for p in self.processes:
            p.go_on()
        # Who wakes first is nobody's promise: what the guard does at once is done before a tenant executes much.
        self.waking = self.on
        self.world.scheduler.after(WAKE_S, self._awake)

    def _awake(self) -> None:
        if self.waking and not self.paused:
            self.waking = False
            self.world.judge.running(f"{self.name} resumed")
            self._go_on()

    def power_off(self) -> None:
        """Everything on it is gone but the disk."""
        self.world.note(f"{self.name}: power off")
        self.on = False
        self.resume()
        for p in self.processes:
            p.kill()
        self.processes.clear()
        self.guard = self.agent = None
        for c in list(self.containers.values()):
            self.end(c)
        self.containers.clear()
        self.routes.clear()
        self.run = Tmpfs()
        self.frozen = False

    def power_on(self) -> None:
        """A new boot; whoever supervises it starts the guard."""
        self.boot += 1
        self.on = True
        self.world.note(f"{self.name}: power on, boot {self.boot}")
