"""A start with an index reads only what it does not have; one without, or with a wrong one, knows the same."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from fleet.index import decode
from node.bucket import keys
from tests.integration.controller.conftest import Fleet

TENANTS = [f"t{i}" for i in range(12)]


class Counting:
    """A store that counts what is asked of it, by kind of key."""

    def __init__(self, inner):
        self._inner, self.reads = inner, Counter()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def get(self, key):
        self.reads[key.partition("/")[0]] += 1
        return self._inner.get(key)


def write_index(fleet: Fleet):
    """As the controller does by itself now and then."""
    controller = fleet.controller
    asyncio.run_coroutine_threadsafe(controller.index.write(), fleet.served.loop).result(60)


def started_again(fleet: Fleet):
    """Stop it and start another one; answers what that read, and which tenants it knows."""
    fleet.stop()
    counting = Counting(fleet.store)
    fleet.start(store=counting)
    known = {t["tenant"]: t for t in fleet.client.get("/v1/tenants").json()["tenants"]}
    return counting.reads, known


@pytest.fixture
def indexed(fleet):
    for tenant in TENANTS:
        fleet.up(tenant)
    # The agent's own writes of owner records are known to the controller once it looked.
    fleet.until(lambda: all(keys.owner(t) in fleet.controller.world.etags for t in TENANTS))
    write_index(fleet)
    return fleet


def test_nothing_is_read_twice(indexed):
    reads, known = started_again(indexed)
    assert sorted(known) == sorted(TENANTS)
    assert reads["specs"] + reads["owners"] <= 2  # what was still being proven


def test_what_changed_since_is_read(indexed):
    indexed.up("t3", env={"A": "2"})
    indexed.client.post("/v1/tenants/t4/stop", params={"wait": "20s"})
    indexed.up("new")
    reads, known = started_again(indexed)
    assert known["t3"]["spec"]["env"] == {"A": "2"}
    assert known["t4"]["want"] == "down"
    assert "new" in known
    assert 4 <= reads["specs"] + reads["owners"] <= 10


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_or_missing_index_costs_reads_and_nothing_else(indexed, damage):
    if damage is None:
        indexed.store.delete([keys.INDEX])
    else:
        indexed.store.put(keys.INDEX, damage)
    reads, known = started_again(indexed)
    assert sorted(known) == sorted(TENANTS)
    assert reads["specs"] == len(TENANTS)
    write_index(indexed)
    assert len(decode(indexed.store.get(keys.INDEX).body)) >= len(TENANTS)


def test_an_index_that_another_controller_wrote_meanwhile_is_as_good(indexed):
    indexed.store.put(keys.INDEX, indexed.store.get(keys.INDEX).body + b"\n")
    write_index(indexed)
    write_index(indexed)
    assert len(decode(indexed.store.get(keys.INDEX).body)) >= len(TENANTS)
