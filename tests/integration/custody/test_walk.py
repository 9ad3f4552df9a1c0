"""The walk of one tenant through its life: born, kept, lost with its machine, restored."""

from __future__ import annotations

import asyncio

from node.bucket import cas, keys
from node.bucket.records import Lineage, Owner
from tests.integration.custody.conftest import UID, Machine, assignment


def owner(machine: Machine) -> Owner:
    held = cas.read(machine.store, keys.owner("acme"), Owner)
    assert held
    return held.record


def test_a_tenant_is_born_and_comes_back_on_its_own_volume_in_the_same_epoch(machine: Machine) -> None:
    async def walk() -> None:
        prepared = await machine.up(assignment(), lambda: machine.write(10))
        assert prepared.claim.born
        assert owner(machine).state == "running"
        assert owner(machine).data_epoch == 1
        machine.write(5)
        await machine.custody.durable("acme")
        await machine.custody.release("acme", generation=1)
        assert owner(machine).state == "released"
        assert owner(machine).observed_generation == 1
        assert owner(machine).positions["app.db"] > "0" * 16
        again = await machine.up(assignment())
        assert again.claim.kind == "kept"
        assert again.claim.epoch == 1
        assert machine.count() == 15

    asyncio.run(walk())


def test_a_lost_volume_is_restored_from_the_bucket_under_a_new_epoch(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment("app.db", "sub/more.db"), lambda: _two(machine))
        machine.write(30)
        await machine.custody.durable("acme")
        await machine.custody.release("acme")
        prepared = await other.up(assignment("app.db", "sub/more.db"))
        assert prepared.claim.kind == "fresh"
        assert prepared.claim.epoch == 2
        assert prepared.restored_bytes > 0
        assert other.count() == 31
        assert other.count("sub/more.db") == 7
        assert owner(other).data_epoch == 2
        lineage = cas.read(other.store, keys.lineage("acme", 2), Lineage)
        assert lineage
        assert lineage.record.parent_epoch == 1
        assert set(lineage.record.cut) == {"app.db", "sub/more.db"}
        other.write(1)
        await other.custody.durable("acme")

    asyncio.run(walk())


def _two(machine: Machine) -> None:
    import os

    machine.write(1)
    (machine.data / "sub").mkdir()
    os.chown(machine.data / "sub", UID, UID)
    machine.write(7, "sub/more.db")
