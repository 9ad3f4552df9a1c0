"""Who is brought up when: places are few, lent for a while, and given back whatever becomes of whoever had one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from node.agent.places import Overtaken, Places, Rank


class Ups:
    """Tenants that take a place and keep it until they are told."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.began: list[str] = []
        self.waits: dict[str, int] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def begin(self, tenant: str, rank: Rank = Rank.VOLUME, *, last: bool = False) -> None:
        self._ends[tenant] = asyncio.Event()
        self.tasks[tenant] = asyncio.create_task(self._up(tenant, rank, last=last))
        await _turns()

    async def end(self, tenant: str) -> None:
        self._ends[tenant].set()
        await _turns()

    async def _up(self, tenant: str, rank: Rank, *, last: bool) -> None:
        def waits(before: int) -> None:
            self.waits[tenant] = before

        async with self.places.place(tenant, rank, waits, last=last):
            self.began.append(tenant)
            await self._ends[tenant].wait()
            if tenant == "damaged":
                raise ValueError(tenant)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(places: Places, test: Callable[[Ups], Awaitable[None]]) -> None:
    async def main() -> None:
        ups = Ups(places)
        try:
            await test(ups)
        finally:
            for task in ups.tasks.values():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ValueError, Overtaken):
                    await task
            assert places.taken == 0

    asyncio.run(main())


def test_whoever_has_no_place_waits_and_hears_how_many_are_before_it() -> None:
    async def test(ups: Ups) -> None:
        for name in ("a", "b", "c"):
            await ups.begin(name)
        assert ups.began == ["a"]
        assert ups.waits == {"b": 1, "c": 2}
        await ups.end("a")
        assert ups.began == ["a", "b"]

    run(Places(1, 1), test)


def test_whoever_is_nearer_to_its_first_answer_goes_first() -> None:
    async def test(ups: Ups) -> None:
        await ups.begin("a")
        await ups.begin("volume")
        await ups.begin("worker", Rank.WORKER)
        await ups.begin("sidecar", Rank.SIDECAR)
        assert ups.waits == {"volume": 1, "worker": 1, "sidecar": 2}
        for name in ("a", "worker", "sidecar"):
            await ups.end(name)
        assert ups.began == ["a", "worker", "sidecar", "volume"]

    run(Places(1, 1), test)


def test_few_begin_and_more_follow_when_one_is_through_until_nobody_is_left() -> None:
    async def test(ups: Ups) -> None:
        for name in ("a", "b", "c", "d", "e"):
            await ups.begin(name, last=name != "a")
        assert ups.began == ["a"]
        await ups.end("a")  # of this one there is more to do
        assert ups.began == ["a", "b"]
        await ups.end("b")
        assert ups.began == ["a", "b", "c", "d", "e"]
        for name in ("c", "d", "e"):
            await ups.end(name)
        await ups.begin("later")
        await ups.begin("last")
        assert "last" not in ups.began

    run(Places(1, 3), test)


@pytest.mark.parametrize("how", ["damaged", "cancelled"])
def test_a_place_is_given_back_whatever_becomes_of_its_tenant(how: str) -> None:
    async def test(ups: Ups) -> None:
        await ups.begin(how)
        await ups.begin("next")
        if how == "cancelled":
            ups.tasks[how].cancel()
            await _turns()
        else:
            await ups.end(how)
        assert ups.began == [how, "next"]
        assert ups.places.taken == 1

    run(Places(1, 1), test)


def test_one_that_is_cancelled_when_its_turn_has_just_come_passes_it_on() -> None:
    async def test(ups: Ups) -> None:
        for name in ("a", "b", "c"):
            await ups.begin(name)
        ups._ends["a"].set()
        while ups.places._waiting[0].tenant == "b":  # noqa: ASYNC110 - until it is called, and before it runs
            await asyncio.sleep(0)
        ups.tasks["b"].cancel()
        await _turns()
        assert ups.began == ["a", "c"]

    run(Places(1, 1), test)


def test_one_that_waits_for_something_else_than_a_processor_does_not_keep_its_place() -> None:
    async def test(ups: Ups) -> None:
        await ups.begin("a")
        await ups.begin("b")
        async with asyncio.timeout(30):
            while ups.began != ["a", "b"]:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)
        await ups.end("a")
        assert ups.places.taken <= 1  # what had lapsed is not given back twice

    run(Places(1, 1, lent_s=0.01), test)


def test_one_that_is_wanted_otherwise_by_now_waits_no_more_and_nobody_loses_a_turn() -> None:
    async def test(ups: Ups) -> None:
        for name in ("a", "b", "c"):
            await ups.begin(name)
        ups.places.withdraw("b")
        ups.places.withdraw("a")  # it does not wait
        await _turns()
        with pytest.raises(Overtaken):
            await ups.tasks["b"]
        await ups.end("a")
        assert ups.began == ["a", "c"]

    run(Places(1, 1), test)
