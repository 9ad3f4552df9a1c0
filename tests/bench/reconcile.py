"""What the controller's decisions cost: a pass over 10,000 tenants on 100 machines, settled or one machine gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from fleet.core.actions import Assign
from fleet.core.model import Machine, Sent
from fleet.core.reconcile import reconcile
from fleet.events import Events
from fleet.metrics import Metrics
from fleet.observe import Observer
from fleet.world import World
from node.api import NodeReport, TenantReport
from node.bucket import keys
from node.bucket.cas import Held
from node.bucket.records import Capacity, Lease, Owner, Spec
from node.bucket.spec import TenantSpec
from tests.bench.figures import Figure, quantile

NODES = 100
CAPACITY = Capacity(memory_bytes=64 << 30, cpus=16.0, disk_bytes=1 << 40)
NOW = 1_000_000.0


def run(*, quick: bool = False) -> Iterator[Figure]:
    """CPU seconds of this process; the median of the rounds is judged, all are shown."""
    rounds, tenants = (2, 10_000) if quick else (9, 10_000)
    world = settled(tenants)
    observer = Observer(world, Events(), Metrics(), lambda: True)

    def decides() -> None:
        assert reconcile(world.specs, world.is_, NOW) == ()

    def whole() -> None:
        for tenant in world.specs:
            observer.look(tenant)
        decides()

    yield _figure("reconcile of 10,000 with nothing to do", whole, rounds, 1.0)
    yield _figure("of that, the decisions alone", decides, rounds, None)
    lost = _without_one(world)

    def failover() -> None:
        found = reconcile(world.specs, lost.is_, NOW)
        assert len(found) == tenants // NODES, found[:3]
        assert all(isinstance(a, Assign) and a.node != "n0" for a in found)

    yield _figure("the same with one machine's tenants to place", failover, rounds, None)


def settled(tenants: int) -> World:
    """Everybody runs where everybody knows it."""
    world = World(clock=lambda: NOW)
    names = [f"n{i}" for i in range(NODES)]
    for node in names:
        world.set_lease(keys.node(node), Held(_lease(node), "e"))
    spec = TenantSpec(image="server:1", databases=("app.db",))
    reports: dict[str, list[TenantReport]] = {node: [] for node in names}
    for number in range(tenants):
        tenant, node = f"tenant-{number:05d}", names[number % NODES]
        world.set_spec(keys.spec(tenant), Held(_spec(tenant, spec), "e"))
        world.set_owner(keys.owner(tenant), Held(_owner(tenant, node), "e"))
        world.sent[tenant] = Sent(node, 1, 1, "up", NOW)
        reports[node].append(TenantReport(tenant=tenant, state="running", epoch=1, observed_generation=1))
    sent = dict(world.sent)
    for node in names:
        report = NodeReport(
            node=node, session=1, version=1, capacity=CAPACITY, gateway_url="http://g", tenants=tuple(reports[node])
        )
        world.node_reported(report)
    world.sent.update(sent)
    world.at_start = frozenset(world.specs)
    return world


def _without_one(world: World) -> World:
    """The same, its first machine gone."""
    lost = settled(len(world.specs))
    gone = _lease("n0").model_copy(update={"state": "gone"})
    lost.set_lease(keys.node("n0"), Held(gone, "f"))
    assert isinstance(lost.machines["n0"], Machine)
    return lost


def _lease(node: str) -> Lease:
    return Lease(
        nonce="n", node=node, session=1, seq=1, ttl_s=15.0, margin_s=3.0, url="http://n", state="active",
        mode="shared", capacity=CAPACITY,
    )  # fmt: skip


def _spec(tenant: str, spec: TenantSpec) -> Spec:
    return Spec(nonce="n", tenant=tenant, generation=1, want="up", spec=spec, proven=1, created_at=NOW, updated_at=NOW)


def _owner(tenant: str, node: str) -> Owner:
    return Owner(
        nonce="n", tenant=tenant, epoch=1, node=node, session=1, state="running", data_epoch=1, observed_generation=1
    )


def _figure(name: str, work: Callable[[], None], rounds: int, bound: float | None) -> Figure:
    work()
    took = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return Figure(name, quantile(took, 0.5), "s of CPU", bound, raw={"all_s": [round(t, 4) for t in took]})
