"""A controller: the product's rules for silence, placement and reconciling, over what it sees of bucket and nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from fleet.bucket import Bucket
from fleet.core import change
from fleet.core.actions import Assign, MarkProven
from fleet.core.model import Sent
from fleet.core.reconcile import reconcile
from fleet.leases import Leases
from fleet.world import World as Known
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.errors import BadRecord, BucketError
from node.bucket.records import Lease, Owner
from tests.sim.clock import Clock
from tests.sim.process import Process
from tests.sim.store import Client

if TYPE_CHECKING:
    from tests.sim.world import World

PATIENCE_S = 12.0
LOOK_S = 6.0
TICK_S = 2.5


class Controller:
    """One of several; all of them act."""

    def __init__(self, world: World, name: str, rate: float) -> None:
        self.world = world
        self.name = name
        self.clock = Clock(world.scheduler, rate)
        self.store = Client(world.network, name, PATIENCE_S)
        self._rate = rate
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        """It knows nothing, and reads everything."""
        if self.process is not None:
            return
        self._known = Known(clock=self.clock.now)
        self._heard: dict[str, tuple[object, int]] = {}
        self._loaded = False
        self.process = Process(self.world.scheduler, self.clock, self.name, self.world.crashed)
        self.process.start(self._main())

    def die(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def emit(self, kind: str, text: str, **more: object) -> None:
        """An event."""
        self.world.note(f"{self.name}: {text}")

    async def _main(self) -> None:
        looked = -LOOK_S
        observer = Leases(self._known, Bucket(self.store), cast(Any, self), lambda: True)
        while True:
            if self.clock.now() - looked >= LOOK_S:
                looked = self.clock.now()
                await asyncio.get_running_loop().run_in_executor(None, self._look)
                observer.sync()
            if self._loaded:
                self._act()
            await asyncio.sleep(TICK_S)

    # ---- what is

    def _look(self) -> None:
        known = self._known
        try:
            for entry in self.store.list(keys.NODES):
                lease = known.leases.get(keys.name_of(entry.key))
                if lease is None or lease.state == "gone":  # the others are followed
                    found = cas.read(self.store, entry.key, Lease)
                    if found is not None:
                        known.set_lease(entry.key, found)
            for entry in self.store.list(keys.OWNERS):
                if known.etags.get(entry.key) != entry.etag:
                    owner = cas.read(self.store, entry.key, Owner)
                    if owner is not None:
                        known.set_owner(entry.key, owner)
            self._loaded = True
        except (BucketError, BadRecord):
            return

    def _hear(self) -> None:
        """What the agents report, and which of them do not answer."""
        known, world = self._known, self.world
        for node in list(known.leases):
            m = world.machines.get(node)
            agent: Any = m.agent if m is not None and m.on and not m.paused else None
            if agent is None or not agent.answers or (self.name, node) in world.islands:
                self._heard.pop(node, None)
                known.node_unreachable(node, "it does not answer")
            elif self._heard.get(node) != (agent, agent.node.board.version):
                self._heard[node] = (agent, agent.node.board.version)
                known.node_reported(agent.node._report(agent.node.board.version, agent.node.board.tenants()))

    # ---- what to do

    def _act(self) -> None:
        self._hear()
        known, world = self._known, self.world
        known.specs.update(world.wanted)
        for action in reconcile(known.specs, known.is_, self.clock.now()):
            match action:
                case Assign():
                    self._assign(action)
                case MarkProven(tenant, generation):
                    if world.wanted[tenant].generation == generation:
                        world.wanted[tenant] = change.proven(world.wanted[tenant])
                case _:
                    pass

    def _assign(self, a: Assign) -> None:
        world, spec = self.world, self.world.wanted[a.tenant]
        agent = world.machines[a.node].agent
        if agent is None:
            return
        want = Assignment(
            tenant=a.tenant, generation=a.generation, want=a.want, spec=spec.spec, previous=spec.previous,
            restarts=spec.restarts, restore=spec.restore,
        )  # fmt: skip
        world.note(f"{self.name}: {a.tenant} {a.want} on {a.node}")

        known = self._known

        async def told() -> None:
            try:
                await agent.assign(want)
            except Exception:  # noqa: BLE001 - it is not ready: the next look tells it again
                return
            sent = Sent(a.node, a.session, a.generation, a.want, known.clock())
            known.mark_sent(a.tenant, sent)

        process = agent.process
        process.call_soon(lambda: process.create_task(told()))
