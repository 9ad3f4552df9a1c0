"""Every answer of the bucket may be doubtful: lost, late, refused for now. The walk is repeated until it is through."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from node.agent.custody.errors import CustodyError, Damaged, Lost, OwnedElsewhere
from node.bucket import cas, keys
from node.bucket.errors import BucketError
from node.bucket.records import Owner
from tests.integration.custody.conftest import Machine, assignment
from tests.testbed.faults import FaultyStore, Rates, seeded

T = TypeVar("T")
RATES = Rates(busy=0.05, not_applied=0.1, applied=0.1, later=0.1)


async def through(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat what may be repeated, a bounded number of times."""
    for _ in range(40):
        try:
            return await call()
        except (Lost, Damaged, OwnedElsewhere):
            raise
        except (CustodyError, BucketError):
            await asyncio.sleep(0.01)
    raise AssertionError("it never gets through")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_life_with_doubtful_answers_ends_with_every_confirmed_row(machine: Machine, seed: int) -> None:
    async def life(rng: random.Random) -> None:
        faulty = FaultyStore.random(machine.store, rng, RATES)
        machine.restart_agent(store=faulty)
        rows = 5
        await through(lambda: machine.up(assignment(), lambda: first(machine)))
        for turn in range(4):
            machine.write(2)
            rows += 2
            await through(lambda: machine.custody.durable("acme"))
            await through(lambda: machine.custody.release("acme"))
            faulty.settle()
            if turn % 2:
                shutil.rmtree(machine.data.parent)
            await through(lambda: machine.up(assignment()))
            assert machine.count() == rows
        faulty.settle()
        held = cas.read(machine.store, keys.owner("acme"), Owner)
        assert held
        assert held.record.state == "running"
        await through(lambda: machine.custody.durable("acme"))

    with seeded(seed) as rng:
        asyncio.run(life(rng))


def first(machine: Machine) -> None:
    """A new tenant's worker writes five rows, once."""
    if not (machine.data / "app.db").exists():
        machine.write(5)
