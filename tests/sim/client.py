"""A client of one tenant: writes, reads, and remembers what it was told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.sim.judge import Ack
from tests.sim.machine import Container

if TYPE_CHECKING:
    from tests.sim.world import World


class User:
    """Calls whichever gateway has a route, for as long as the world lasts."""

    def __init__(self, world: World, tenant: str) -> None:
        self.world = world
        self.tenant = tenant
        self.tried = self.unknown = 0
        self._later()

    def _later(self) -> None:
        self.world.scheduler.after(self.world.rng.uniform(0.5, 6.0), self._call)

    def _call(self) -> None:
        self._later()
        world, tenant = self.world, self.tenant
        serving = [
            c
            for m in world.machines.values()
            if m.on and tenant in m.routes and (c := m.find(tenant, "worker")) and c.moves
        ]
        if not serving:
            return
        c = world.rng.choice(serving)
        if world.specs[tenant].rpo == 0:
            world.judge.read(c)
        self._write(c)

    def _write(self, c: Container) -> None:
        world, spec = self.world, self.world.specs[self.tenant]
        files = spec.databases if world.rng.random() < 0.5 else (world.rng.choice(spec.databases),)
        row, asked_at = world.number(), world.scheduler.now
        self.tried += 1
        world.judge.past.written(row, c.epoch)
        side = c.machine.find(self.tenant, "sidecar")
        for db in files:
            c.volume.file(db).rows.append(row)
            if side is not None and side.litestream is not None:
                side.litestream.committed(db)
        if spec.rpo > 0:
            return
        agent = c.machine.agent
        door = agent.doors.get(self.tenant) if agent is not None else None
        if agent is None or door is None:
            self.unknown += 1
            return
        process = agent.process

        def answered(task: asyncio.Task[None]) -> None:
            if not process.alive or task.cancelled() or task.exception() is not None:
                self.unknown += 1
                return
            c.do(lambda: self._acked(c, Ack(row, tuple(files), self.world.scheduler.now), asked_at))

        def ask() -> None:
            process.create_task(door.durable()).add_done_callback(answered)

        process.call_soon(ask)

    def _acked(self, c: Container, ack: Ack, asked_at: float) -> None:
        self.world.note(f"acknowledged {ack.row} of {self.tenant}, epoch {c.epoch} on {c.machine.name}")
        self.world.judge.acked(c, ack, asked_at)
