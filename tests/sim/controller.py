"""A controller: the product's rules for silence, placement and reconciling, over what it sees of bucket and nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from fleet.bucket import Bucket
from fleet.core import change
from fleet.core.actions import Assign, MarkProven
from fleet.core.model import Is, Machine, Sent
from fleet.core.reconcile import reconcile
from fleet.leases import Leases
from node.api import Assignment, TenantReport
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import BadRecord, BucketError
from node.bucket.records import Lease, Owner
from tests.sim.clock import Clock
from tests.sim.process import Process
from tests.sim.store import Client

if TYPE_CHECKING:
    from tests.sim.world import World

PATIENCE_S = 12.0
LOOK_S = 5.0
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
        self.leases: dict[str, Lease] = {}
        self.revoked: dict[str, int] = {}
        self._owners: dict[str, Owner] = {}
        self._etags: dict[str, str] = {}
        self._sent: dict[str, Sent] = {}
        self._loaded = False
        self.process = Process(self.world.scheduler, self.clock, self.name, self.world.crashed)
        self.process.start(self._main())

    def die(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    # ---- what the product's observer of leases works with

    def set_lease(self, key: str, held: Held[Lease]) -> None:
        """A lease as it was read or ended."""
        self.leases[keys.name_of(key)] = held.record

    def emit(self, kind: str, text: str, **more: object) -> None:
        """An event."""
        self.world.note(f"{self.name}: {text}")

    async def _main(self) -> None:
        looked = -LOOK_S
        observer = Leases(cast(Any, self), Bucket(self.store), cast(Any, self), lambda: True)
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
        try:
            for entry in self.store.list(keys.NODES):
                known = self.leases.get(keys.name_of(entry.key))
                if known is None or known.state == "gone":  # the others are followed
                    held = cas.read(self.store, entry.key, Lease)
                    if held is not None:
                        self.leases[keys.name_of(entry.key)] = held.record
            for entry in self.store.list(keys.OWNERS):
                if self._etags.get(entry.key) != entry.etag:
                    found = cas.read(self.store, entry.key, Owner)
                    if found is not None:
                        self._owners[keys.name_of(entry.key)] = found.record
                        self._etags[entry.key] = found.etag
            self._loaded = True
        except (BucketError, BadRecord):
            return

    # ---- what to do

    def _act(self) -> None:
        world = self.world
        machines: dict[str, Machine] = {}
        reports: dict[str, dict[str, TenantReport]] = {}
        for node, lease in self.leases.items():
            m = world.machines.get(node)
            agent: Any = m.agent if m is not None and m.on and not m.paused else None
            answers = agent is not None and agent.answers and (self.name, node) not in world.islands
            fenced = answers and bool(agent.node.fenced)
            machines[node] = Machine(
                node, lease.session, lease.state, lease.mode, lease.capacity, lease.labels, answers, fenced
            )
            if answers:
                for r in agent.node.board.tenants():
                    reports.setdefault(r.tenant, {})[node] = r
        self._do(machines, reports)

    def _do(self, machines: dict[str, Machine], reports: dict[str, dict[str, TenantReport]]) -> None:
        world = self.world
        is_ = Is(machines, self._owners, reports, self._sent, {})
        for action in reconcile(world.wanted, is_, self.clock.now()):
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

        async def told() -> None:
            try:
                await agent.assign(want)
            except Exception:  # noqa: BLE001 - it is not ready: the next look tells it again
                return
            self._sent[a.tenant] = Sent(a.node, a.session, a.generation, a.want, self.clock.now())

        process = agent.process
        process.call_soon(lambda: process.create_task(told()))
