"""Group commit: who joins which round."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from node.agent.custody.rounds import TABLE, Event, Rounds, State, step


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_every_pair_of_the_table_is_decided(state: State, event: Event) -> None:
    if (state, event) in TABLE:
        assert step(state, event) is TABLE[state, event]
    else:
        assert (state, event) == (State.IDLE, Event.LANDED)
        with pytest.raises(ValueError, match="cannot happen"):
            step(state, event)


class Work:
    """Rounds that end when the test says so."""

    def __init__(self) -> None:
        self.open: list[asyncio.Future[int]] = []

    async def __call__(self) -> int:
        self.open.append(asyncio.get_running_loop().create_future())
        return await self.open[-1]


def run(test: Callable[[Work, Rounds[int]], Awaitable[None]]) -> None:
    async def main() -> None:
        work = Work()
        await test(work, Rounds(work, lambda: 0.0))

    asyncio.run(main())


async def breathe() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_whoever_comes_during_a_round_waits_for_the_next_one_and_all_of_them_share_it() -> None:
    async def test(work: Work, rounds: Rounds[int]) -> None:
        first = rounds.join()
        await breathe()
        later = [rounds.join() for _ in range(64)]
        await breathe()
        assert len(work.open) == 1
        work.open[0].set_result(1)
        await breathe()
        assert await first == 1
        assert len(work.open) == 2
        assert not any(f.done() for f in later)
        work.open[1].set_result(2)
        assert [await f for f in later] == [2] * 64
        await breathe()
        assert len(work.open) == 2

    run(test)


def test_a_failure_reaches_everyone_of_its_round_and_nobody_else() -> None:
    async def test(work: Work, rounds: Rounds[int]) -> None:
        first = rounds.join()
        await breathe()
        second = rounds.join()
        work.open[0].set_exception(OSError("no"))
        await breathe()
        with pytest.raises(OSError, match="no"):
            await first
        work.open[1].set_result(2)
        assert await second == 2

    run(test)


def test_a_caller_that_gives_up_leaves_the_round_to_the_others() -> None:
    async def test(work: Work, rounds: Rounds[int]) -> None:
        with pytest.raises(TimeoutError):
            await rounds.settled(0.0)
        other = asyncio.create_task(rounds.settled(10.0))
        await breathe()
        assert len(work.open) == 1
        work.open[0].set_result(1)
        await breathe()
        work.open[1].set_result(2)
        assert await other == 2

    run(test)


def test_rounds_of_a_sidecar_that_is_gone_are_abandoned_and_new_ones_begin() -> None:
    async def test(work: Work, rounds: Rounds[int]) -> None:
        flying, queued = rounds.join(), None
        await breathe()
        queued = rounds.join()
        rounds.abandon(OSError("gone"))
        await breathe()
        with pytest.raises(ConnectionAbortedError):
            await flying
        with pytest.raises(OSError, match="gone"):
            await queued
        again = rounds.join()
        await breathe()
        work.open[-1].set_result(3)
        assert await again == 3

    run(test)


def test_a_round_that_was_abandoned_before_its_first_step_does_not_stand_in_the_way_of_the_next() -> None:
    async def test(work: Work, rounds: Rounds[int]) -> None:
        first = rounds.join()
        rounds.abandon(RuntimeError("gone"))  # its task has not run yet
        await breathe()
        with pytest.raises(ConnectionAbortedError):
            first.result()
        later = rounds.join()
        await breathe()
        work.open[0].set_result(1)
        assert await asyncio.wait_for(later, 60) == 1

    run(test)
