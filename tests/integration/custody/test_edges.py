"""Lives that ended in the middle, tombstones, old epochs, zombies."""

from __future__ import annotations

import asyncio
import shutil
import signal

from node.agent.custody.config import SOCKET
from node.agent.custody.litestream import ControlSocket
from node.bucket import cas, keys
from node.bucket.records import Capacity, Lease, Lineage, Owner
from tests.integration.custody.conftest import DISK, UID, Machine, assignment


def record(machine: Machine) -> Owner:
    held = cas.read(machine.store, keys.owner("acme"), Owner)
    assert held
    return held.record


async def uploaded(machine: Machine) -> None:
    """Its sidecar has copied all that is committed, whoever has the tenant."""
    async with asyncio.timeout(90):
        await ControlSocket(machine.data.parent / "meta" / SOCKET).sync("/data/app.db", wait=True)


def gone(machine: Machine, node: str, session: int) -> None:
    """Somebody has revoked that node's session."""
    lease = Lease(
        nonce="x", node=node, session=session, seq=9, ttl_s=15.0, margin_s=3.0, url="", state="gone", mode="shared",
        capacity=Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1),
    )  # fmt: skip
    machine.store.create(keys.node(node), lease.encode())


def test_a_tenant_whose_first_node_was_lost_before_it_settled_is_not_born_empty(
    machine: Machine, other: Machine
) -> None:
    async def walk() -> None:
        files = assignment("app.db", "later.db")
        claim = await machine.custody.claim(files)
        await machine.custody.prepare(claim, UID, DISK, lambda phase, fraction: None)
        await machine.custody.stream(claim, UID)
        machine.write(5)
        await uploaded(machine)  # while one declared file never came
        assert record(machine).data_epoch == 0
        gone(machine, "n1", 1)
        prepared = await other.up(files)
        assert prepared.claim.kind == "fresh"
        assert other.count() == 5
        assert record(other).data_epoch == 2

    asyncio.run(walk())


def test_a_failover_takes_over_what_was_confirmed_and_reports_what_a_zombie_adds(
    machine: Machine, other: Machine
) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.durable("acme")
        gone(machine, "n1", 1)
        prepared = await other.up(assignment())
        assert prepared.claim.reason == "failover"
        assert other.count() == 5
        assert (await other.custody.survey("acme", 3600.0)).orphans == {}
        machine.write(2)  # the zombie's sidecar still runs
        await uploaded(machine)
        orphans = (await other.custody.survey("acme", 3600.0)).orphans
        assert {epoch: set(files) for epoch, files in orphans.items()} == {1: {"app.db"}}
        await other.custody.release("acme")
        shutil.rmtree(other.data.parent)
        await other.up(assignment())
        assert other.count() == 5

    asyncio.run(walk())


def test_a_purged_tenant_is_reborn_empty_at_the_next_epoch_though_its_data_is_still_there(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.release("acme", to="purged", generation=2)
        assert (record(machine).state, record(machine).observed_generation) == ("purged", 2)
        anew = assignment().model_copy(update={"generation": 3})
        claim = await machine.custody.claim(anew)
        assert (claim.kind, claim.epoch, record(machine).data_epoch) == ("born", 2, 0)
        machine.restart_agent()  # it dies at once: the purged data must not come back
        prepared = await machine.up(anew, lambda: machine.write(1))
        assert (prepared.claim.kind, prepared.claim.epoch) == ("born", 3)
        assert machine.count() == 1
        lineage = cas.read(machine.store, keys.lineage("acme", 3), Lineage)
        assert lineage
        assert lineage.record.reason == "reborn"

    asyncio.run(walk())


def test_a_tenant_that_nothing_runs_of_is_put_down_or_purged_by_its_record(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await machine.custody.release("acme")
        assert cas.read(machine.store, keys.owner("acme"), Owner) is None
        await machine.up(assignment(), lambda: machine.write(5))
        gone(machine, "n1", 1)
        await other.custody.release("acme", generation=3)
        assert (record(other).state, record(other).node, record(other).observed_generation) == ("released", "n2", 3)
        assert record(other).data_epoch == 1
        await other.custody.release("acme", to="purged", generation=4)
        assert record(other).state == "purged"

    asyncio.run(walk())


def test_another_rpo_is_streamed_with_from_the_next_moment_on(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(rpo=1.0), lambda: machine.write(5))
        assert not await machine.custody.respec(assignment(rpo=1.0))
        assert await machine.custody.respec(assignment(rpo=10.0))
        text = (machine.folder / "run" / "sidecars" / "acme" / "litestream.yml").read_text()
        assert '"monitor-interval": "5s"' in text
        machine.write(5)
        await machine.custody.release("acme")
        assert record(machine).state == "released"
        await machine.up(assignment())
        assert machine.count() == 10

    asyncio.run(walk())


def test_a_sidecar_that_keeps_dying_is_not_restarted_in_a_tight_loop(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        happened = []
        for _ in range(3):
            machine.runtime.signal("acme-sidecar", signal.SIGKILL)
            (container,) = machine.runtime.containers()
            happened.append(await machine.custody.sidecar_ended(container))
            if happened[-1] is None:
                break
        assert [bool(e) for e in happened] == [True, False]

    asyncio.run(walk())
