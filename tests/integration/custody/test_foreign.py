"""A second Litestream on the same prefix: somebody else's, whom no lease knows. This side leaves it alone with it."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace

from node.agent.custody.values import CustodyEvent
from node.agent.custody.watchdog import Limits
from tests.integration.custody.conftest import UID, Machine, assignment
from tests.integration.custody.local import LocalRuntime

QUICK = Limits(stuck_s=60, silent_s=1, call_s=60, foreign_s=2, first_wait_s=0.1)


class Twin:
    """A copy of a tenant's volume with a Litestream of its own on the same prefix: a cloned machine."""

    def __init__(self, machine: Machine, other: Machine) -> None:
        self.other = other
        held = machine.custody._held["acme"]  # the test's own look inside: no API gives a sidecar away
        assert held.sidecar is not None
        shutil.copytree(
            machine.folder / "t" / "acme", other.folder / "t" / "acme", ignore=shutil.ignore_patterns("*.sock")
        )
        volume = other.volumes.ensure("acme", UID, 0)
        for path in (other.folder / "t" / "acme").rglob("*"):
            shutil.chown(path, UID, UID)
        self.runtime = LocalRuntime(other.folder)
        self.runtime.start(self.runtime.create(replace(held.sidecar.spec, volume=volume)))


async def foreign_writer(events: AsyncGenerator[CustodyEvent, None]) -> CustodyEvent:
    async with asyncio.timeout(120):
        async for event in events:
            if event.kind == "foreign_writer":
                return event
    raise AssertionError("it was not noticed")


def test_a_foreign_writer_in_the_prefix_is_left_alone_with_it(machine: Machine, other: Machine) -> None:
    machine.limits = QUICK
    machine.restart_agent()

    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.durable("acme")
        twin = Twin(machine, other)
        try:
            events = machine.custody.supervise(interval_s=0.3)
            noticed = asyncio.create_task(foreign_writer(events))
            for _ in range(5):
                other.write(1)
                await asyncio.sleep(1.3)  # one transaction each in the bucket
            machine.write(2)
            machine.runtime.signal("acme-sidecar", signal.SIGKILL)  # while it lives it looks at nothing but itself
            event = await noticed
            assert "epoch 1" in event.message
            machine.runtime.kill("acme-sidecar")
            machine.custody.forget("acme")
            prepared = await machine.up(assignment())
            assert (prepared.claim.kind, prepared.claim.epoch) == ("carried", 2)
            assert machine.count() == 7
            await machine.custody.durable("acme")
            await machine.custody.release("acme")
            shutil.rmtree(machine.data.parent)
            await machine.up(assignment())
            assert machine.count() == 7
        finally:
            twin.runtime.close()

    asyncio.run(walk())


def test_a_foreign_writer_is_noticed_though_the_sidecar_runs_on(machine: Machine, other: Machine) -> None:
    machine.limits = replace(QUICK, silent_s=60, alone_s=1, alone_rpo_0_s=1)
    machine.restart_agent()

    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.durable("acme")
        noticed = asyncio.create_task(foreign_writer(machine.custody.supervise(interval_s=0.3)))
        for _ in range(3):
            machine.write(1)
            await asyncio.sleep(1.3)  # it is compared, and alone
        assert not noticed.done(), noticed.result()
        twin = Twin(machine, other)
        try:
            for _ in range(3):
                other.write(1)
                await asyncio.sleep(1.3)
                machine.write(1)
                other.write(1)
                await asyncio.sleep(1.3)
            await noticed
            machine.runtime.kill("acme-sidecar")
            machine.custody.forget("acme")
            prepared = await machine.up(assignment())
            assert (prepared.claim.kind, prepared.claim.epoch) == ("carried", 2)
            assert machine.count() == 11
        finally:
            twin.runtime.close()

    asyncio.run(walk())


def test_a_sidecar_that_guards_no_log_is_told(machine: Machine) -> None:
    machine.limits = replace(QUICK, silent_s=60, unguarded_s=1)
    machine.restart_agent()

    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        db = machine.connect()  # the worker's: it keeps the log's files there
        db.execute("select * from r").fetchall()
        async with asyncio.timeout(120):
            events = machine.custody.supervise(interval_s=0.3)
            first = asyncio.create_task(anext(events))
            await asyncio.sleep(4)
            assert not first.done(), first.result()  # Litestream's own lock is there all the time
            machine.runtime.signal("acme-sidecar", signal.SIGKILL)
            assert (await first).kind == "unguarded"
            machine.runtime.start("acme-sidecar")
            assert (await anext(events)).kind == "guarded"
        db.close()

    asyncio.run(walk())
