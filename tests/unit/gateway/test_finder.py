"""Finding other nodes' tenants: what is read when, and what a stranger can make a node read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from node.agent import finder
from node.agent.budget import NAMES_FOR_S, Budget
from node.agent.finder import Finder
from node.agent.gateway.table import Peer
from node.agent.whereabouts import Absent, Elsewhere, Nobody
from node.bucket import keys
from node.bucket.errors import Ambiguous
from node.bucket.memory import MemoryStore
from node.bucket.records import Owner
from tests.unit.gateway.test_whereabouts import lease, owner

THERE = Elsewhere("there", 3, "http://10.0.0.2:7080")
PEER = Peer("10.0.0.2", 7080)


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store(MemoryStore):
    """Counts reads; may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.away = False

    def get(self, key: str) -> Any:
        self.reads.append(key)
        if self.away:
            raise Ambiguous("no answer", key=key)
        return super().get(key)


@dataclass
class Gateway:
    """Notes where it was told to send requests."""

    told: dict[str, Peer] = field(default_factory=dict)
    cuts: list[Peer] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def reach(self, tenant: str, peer: Peer) -> bool:
        self.told[tenant] = peer
        return True

    def lose(self, tenant: str) -> None:
        self.told.pop(tenant, None)

    def used(self) -> dict[str, int]:
        return dict.fromkeys(self.asked, 1)

    def cut(self, peer: Peer) -> int:
        self.cuts.append(peer)
        return 1


class Place:
    """A finder with everything around it."""

    def __init__(self) -> None:
        self.clock, self.store, self.gateway = Clock(), Store(), Gateway()
        self.finder = Finder(self.store, self.gateway, "me", "http://10.0.0.1:7080", self.clock)
        self.store.put(keys.node("there"), lease().encode())
        self.own("acme", owner("running"))

    def own(self, tenant: str, record: Owner) -> None:
        self.store.put(keys.owner(tenant), record.encode())


def run(test: Callable[[Place], Awaitable[None]]) -> None:
    async def main() -> None:
        place = Place()
        try:
            await test(place)
        finally:
            await place.finder.close()

    asyncio.run(main())


def test_many_who_ask_at_once_cost_one_look() -> None:
    async def test(place: Place) -> None:
        assert await asyncio.gather(*(place.finder.ask("acme") for _ in range(50))) == [THERE] * 50
        assert place.gateway.told == {"acme": PEER}
        assert place.store.reads == [keys.owner("acme"), keys.node("there")]

    run(test)


def test_what_leads_nowhere_is_kept_for_a_moment() -> None:
    async def test(place: Place) -> None:
        place.own("down", owner("released"))
        for tenant, wanted in (("nobody", Nobody()), ("down", Absent("released"))):
            place.store.reads.clear()
            for _ in range(20):
                assert await place.finder.ask(tenant) == wanted
            assert len(place.store.reads) == 1
        place.clock.now += finder.DOWN_S
        place.own("down", owner("running"))
        assert await place.finder.ask("down") == THERE

    run(test)


def test_a_bucket_that_does_not_answer_takes_no_route_away() -> None:
    async def test(place: Place) -> None:
        await place.finder.ask("acme")
        place.store.away = True
        place.clock.now += 1
        await place.finder.doubt("acme")
        assert place.gateway.told == {"acme": PEER}
        assert await place.finder.ask("beta") == Absent("bucket_unreachable")
        place.store.away = False
        place.clock.now += finder.PASSING_S
        assert await place.finder.ask("beta") == Nobody()

    run(test)


def test_a_doubt_is_looked_into_and_only_where_there_is_a_route() -> None:
    async def test(place: Place) -> None:
        await place.finder.ask("acme")
        place.own("acme", owner("released"))
        place.clock.now += 1
        await place.finder.doubt("acme")
        assert place.gateway.told == {}
        place.store.reads.clear()
        await place.finder.doubt("acme")
        await place.finder.doubt("other")
        assert place.store.reads == []

    run(test)


def test_a_watched_node_costs_one_read_and_its_tenants_none_until_their_records_are_old() -> None:
    async def test(place: Place) -> None:
        for tenant in ("acme", "beta", "gamma"):
            place.own(tenant, owner("running"))
            await place.finder.ask(tenant)
        place.store.reads.clear()
        await place.finder._check()
        assert place.store.reads == [keys.node("there")]
        place.store.reads.clear()
        place.clock.now += finder.OWNER_EVERY_S
        await place.finder._check()
        assert sorted(set(place.store.reads)) == [
            keys.node("there"),
            *(keys.owner(t) for t in ("acme", "beta", "gamma")),
        ]

    run(test)


def test_a_session_that_is_over_takes_its_routes_and_cuts_who_waits() -> None:
    async def test(place: Place) -> None:
        await place.finder.ask("acme")
        place.store.put(keys.node("there"), lease(state="gone").encode())
        await place.finder._check()
        assert place.gateway.told == {}
        assert place.gateway.cuts == [PEER]
        assert await place.finder.ask("acme") == Absent("failover")

    run(test)


def test_a_new_session_that_took_its_tenants_with_it_cuts_nobody() -> None:
    async def test(place: Place) -> None:
        await place.finder.ask("acme")
        place.store.put(keys.node("there"), lease(session=4).encode())
        place.own("acme", owner("running", session=4))
        await place.finder._check()
        assert place.gateway.told == {"acme": PEER}
        assert place.gateway.cuts == []

    run(test)


def test_a_tenant_that_nobody_asks_for_is_forgotten() -> None:
    async def test(place: Place) -> None:
        place.own("beta", owner("running"))
        await place.finder.ask("acme")
        await place.finder.ask("beta")
        place.clock.now += 60
        place.gateway.asked = {"beta"}
        await place.finder._forget_unused()
        assert set(place.gateway.told) == {"beta"}

    run(test)


def test_those_who_wait_follow_as_soon_as_another_node_has_claimed() -> None:
    async def test(place: Place) -> None:
        place.own("acme", owner("released", node="me"))
        place.finder.follow("acme")
        following = place.finder._following["acme"]
        await asyncio.wait({following}, timeout=0)
        place.own("acme", owner("claimed"))
        await following
        assert place.gateway.told == {"acme": PEER}

    run(test)


def test_strangers_are_given_sixty_looks_and_one_a_second() -> None:
    clock, listed = Clock(), [0]

    def names() -> set[str]:
        listed[0] += 1
        return {"acme", "beta"}

    budget = Budget(clock, names)
    assert [budget.allows(f"no-{i}") for i in range(100)].count(True) == 60
    assert budget.allows("acme")
    assert listed == [1]
    clock.now += 10
    assert [budget.allows(f"no-{i}") for i in range(100)].count(True) == 10
    assert listed == [1]
    clock.now += NAMES_FOR_S
    assert [budget.allows(f"no-{i}") for i in range(100)].count(True) == 30
    assert listed == [2]


def test_tenants_that_are_down_are_bounded_as_well_and_those_found_cost_nothing() -> None:
    clock = Clock()
    budget = Budget(clock, lambda: {"acme"})
    assert [budget.allows("acme") for _ in range(1000)].count(True) == 60 + 200
    for _ in range(5):
        budget.refund()
    assert [budget.allows("acme") for _ in range(1000)].count(True) == 10
