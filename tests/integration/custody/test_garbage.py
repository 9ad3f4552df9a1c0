"""A collection against the real Litestream and MinIO: every retained moment still restores, row by row."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import apsw

from node.agent.custody import garbage
from node.api import Assignment
from node.bucket import keys
from node.bucket.records import Restore
from tests.integration.custody.conftest import DISK, UID, Machine, assignment

RETENTION_S = 3600.0


async def rows_at(machine: Machine, name: str, moment: float) -> int:
    """How many rows a copy of the tenant as of a moment has."""
    restore = Restore(id=name, at=moment, source="acme")
    a = Assignment(tenant=name, generation=1, want="up", spec=assignment().spec, restore=restore)
    claim = await machine.custody.claim(a)
    prepared = await machine.custody.prepare(claim, UID, DISK, lambda phase, fraction: None)
    path: Path = prepared.volume.data / "app.db"
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return int(str(db.execute("select count(*) from r").fetchall()[0][0]))
    finally:
        db.close()
        await machine.custody.release(name)


def at_horizon(machine: Machine, horizon: float) -> None:
    """From now on the agent's clock says that this is the oldest retained moment."""
    machine.restart_agent(now=lambda: horizon + RETENTION_S + garbage.GRACE_S)


def test_after_a_collection_every_retained_moment_has_its_rows(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        moments: list[tuple[float, int]] = []
        rows = 0
        for node in (machine, other, machine, other):  # four epochs, of two moments each
            node.restart_agent()
            await node.up(assignment(retention=RETENTION_S), lambda: machine.write(1))
            for more in (2, 3):
                rows += more + (rows == 0)
                node.write(more)
                await node.custody.durable("acme")
                await asyncio.sleep(1.1)
                moments.append((time.time(), rows))
                await asyncio.sleep(1.1)
            await node.custody.release("acme")
        # The third epoch's first moment is the oldest that is retained: the first two may go, and no more.
        oldest = moments[4][0]
        at_horizon(other, oldest)
        found = await other.custody.survey("acme", RETENTION_S)
        assert {f.epoch: f.goes for f in found.fates} == {1: True, 2: True, 3: False, 4: False}
        gone = await other.custody.collect("acme", found)
        assert gone.done
        assert gone.objects == sum(found.holdings[epoch].objects for epoch in (1, 2))
        assert not list(other.store.list(keys.epoch_data("acme", 2)))
        other.restart_agent()
        for n, (moment, expected) in enumerate(moments[4:]):
            assert await rows_at(other, f"copy{n}", moment) == expected
        await other.up(assignment(retention=RETENTION_S))
        assert other.count() == rows
        assert (await other.custody.points("acme")).points[0].at <= oldest

    asyncio.run(walk())
