"""A controller: the product's rules for silence, placement and reconciling, over what it sees of bucket and nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from fleet.bucket import Bucket
from fleet.core import change
from fleet.core.actions import Assign, FinishPurge, MarkProven, Purge
from fleet.core.leading import Me
from fleet.core.model import Sent
from fleet.core.reconcile import reconcile
from fleet.leader import Leadership
from fleet.leases import Leases
from fleet.world import World as Known
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import BadRecord, BucketError
from node.bucket.records import Cordons, Lease, Owner, Spec
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
        lead = Leadership(Me(self.name, f"https://{self.name}"), Bucket(self.store), cast(Any, self))
        acts = lead.acts if self.world.script.led else lambda: True
        if self.world.script.led:
            self._leading = asyncio.create_task(lead.run())
        observer = Leases(self._known, Bucket(self.store), cast(Any, self), acts)
        while True:
            if self.clock.now() - looked >= LOOK_S:
                looked = self.clock.now()
                await asyncio.get_running_loop().run_in_executor(None, self._look)
                observer.sync()
                self._read()
            if self._loaded:
                self._hear()
                if acts():
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

    def _read(self) -> None:
        """What should be, and which machines are closed."""
        known, world = self._known, self.world
        for tenant, spec in world.wanted.items():
            if known.specs.get(tenant) is not spec:
                known.set_spec(keys.spec(tenant), Held(spec, ""))
        known.set_cordons(keys.CORDONS, Held(Cordons(nonce="", nodes=dict(world.cordons)), ""))

    def _act(self) -> None:
        known = self._known
        if self.name == "c0":  # operators call this one: the others find what they asked for when they look
            self._read()
        for action in reconcile(known.specs, known.is_, self.clock.now()):
            match action:
                case Assign():
                    self._assign(action)
                case MarkProven(tenant, generation):
                    self._mark(tenant, generation, change.proven)
                case Purge():
                    self._purge(action)
                case FinishPurge(tenant, generation):
                    self._mark(tenant, generation, change.purge_done)
                case _:
                    pass

    def _mark(self, tenant: str, generation: int, what: Callable[[Spec], Spec]) -> None:
        wanted = self.world.wanted
        if wanted[tenant].generation == generation:
            wanted[tenant] = what(wanted[tenant])

    def _purge(self, a: Purge) -> None:
        agent, known = self.world.machines[a.node].agent, self._known
        if agent is None or agent.node is None:
            return
        self.world.note(f"{self.name}: {a.tenant} is deleted up to epoch {a.epoch} by {a.node}")

        async def told() -> None:
            try:
                report = await agent.node.purge(a.tenant, a.epoch)
            except Exception:  # noqa: BLE001 - it is asked again
                return
            if report.done:
                known.emptied[a.tenant] = a.epoch

        agent.process.call_soon(lambda: agent.process.create_task(told()))

    def _assign(self, a: Assign) -> None:
        world, spec = self.world, self._known.specs[a.tenant]
        agent = world.machines[a.node].agent
        if agent is None:
            return
        want = Assignment(
            tenant=a.tenant, generation=a.generation, want=a.want, spec=spec.spec, previous=spec.previous,
            restarts=spec.restarts, restore=spec.restore, moving=self._moving(spec, a),
        )  # fmt: skip
        world.note(f"{self.name}: {a.tenant} {a.want} on {a.node}")

        known = self._known
        sent = Sent(a.node, a.session, a.generation, a.want, known.clock(), a.move)
        known.mark_sending(a.tenant, sent)
        if a.move is not None and a.want == "down":
            world.judge.past.sent_off(a.tenant, world.cordons[a.node].at_once if a.node in world.cordons else 9)

        async def told() -> None:
            try:
                await agent.assign(want)
            except Exception:  # noqa: BLE001 - it is not ready: the next look tells it again
                known.not_sent(a.tenant)
                return
            known.mark_sent(a.tenant, sent)

        process = agent.process
        process.call_soon(lambda: process.create_task(told()))

    def _moving(self, spec: Spec, a: Assign) -> bool:
        """As the controller's executor says it."""
        if a.want == "up":
            seen = self._known.evidence(a.tenant)
            return seen.hold == "none" and seen.node not in (None, a.node)
        return a.want == "down" and spec.want == "up"
