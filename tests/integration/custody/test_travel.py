"""Going back in time, and copies of a tenant."""

from __future__ import annotations

import asyncio
import time

import pytest

from node.agent.custody.errors import Refused
from node.bucket import cas, keys
from node.bucket.records import Lineage, Owner, Restore
from tests.integration.custody.conftest import Machine, assignment


def test_a_tenant_goes_back_to_a_moment_across_epochs_once_per_request(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(2))
        await machine.custody.durable("acme")
        await asyncio.sleep(1.2)
        early = time.time()
        await asyncio.sleep(1.2)
        machine.write(3)
        await machine.custody.durable("acme")
        await machine.custody.release("acme")
        await other.up(assignment())
        other.write(4)
        await other.custody.durable("acme")
        with pytest.raises(Refused, match="release it"):
            await other.custody.claim(assignment(restore=Restore(id="r1", at=early)))
        points = await other.custody.points("acme")
        assert points.points[0].at < early < points.points[-1].at
        assert {p.epoch for p in points.points} == {1, 2}
        await other.custody.release("acme")
        back = assignment(restore=Restore(id="r1", at=early))
        prepared = await other.up(back)
        assert other.count() == 2
        assert prepared.claim.epoch == 3
        lineage = cas.read(other.store, keys.lineage("acme", 3), Lineage)
        assert lineage
        assert (lineage.record.parent_epoch, lineage.record.reason) == (1, "restore")
        other.write(1)
        await other.custody.release("acme")
        await other.up(back)
        assert other.count() == 3
        with pytest.raises(Refused, match="nothing of it"):
            await other.custody.release("acme")
            await other.custody.claim(assignment(restore=Restore(id="r2", at=early - 3600)))
        held = cas.read(other.store, keys.owner("acme"), Owner)
        assert held
        assert held.record.state == "released"
        await other.up(assignment())
        assert other.count() == 3

    asyncio.run(walk())


def test_a_copy_of_another_tenant_has_its_rows_and_a_life_of_its_own(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.durable("acme")
        copy = assignment(restore=Restore(id="f1", source="acme")).model_copy(update={"tenant": "copy"})
        claim = await machine.custody.claim(copy)
        prepared = await machine.custody.prepare(claim, 41235, 1 << 30, lambda phase, fraction: None)
        await machine.custody.stream(prepared.claim, 41235)
        await machine.custody.settle(prepared.claim)
        await machine.custody.durable("copy")
        await machine.custody.release("copy", to="purged")
        deleted, done = await machine.custody.purge("copy", 1)
        assert deleted > 0
        assert done
        assert not list(machine.store.list("data/copy/"))
        with pytest.raises(Refused, match="nothing is deleted"):
            await machine.custody.purge("acme", 1)
        await machine.custody.durable("acme")
        reborn = await machine.custody.claim(copy.model_copy(update={"restore": None}))
        assert (reborn.kind, reborn.epoch) == ("born", 2)

    asyncio.run(walk())
