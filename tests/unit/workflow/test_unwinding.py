"""A run that leaves memory takes nothing else with it, whatever its cleanup does."""

from __future__ import annotations

import asyncio

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.errors import Nondeterministic
from tests.unit.workflow.book import Book


class Stop(BaseException):
    """An author's own."""


@pytest.mark.parametrize("error", [Stop, SystemExit, asyncio.CancelledError, ValueError])
def test_what_cleanup_raises_does_not_leave_the_run(error: type[BaseException]) -> None:
    unwound: list[str] = []

    async def careful(ctx: Context) -> None:
        try:
            await ctx.sleep(days=1)
        finally:
            unwound.append("branch")
            raise error("cleanup")

    @workflow
    async def both(ctx: Context) -> None:
        try:
            await ctx.gather(careful(ctx), careful(ctx))
        finally:
            unwound.append("body")
            raise error("cleanup")

    Book(both).machine.close()
    assert unwound == ["branch", "branch", "body"]


def test_an_interrupt_from_the_keyboard_ends_the_process_and_not_the_run() -> None:
    @workflow
    async def interrupted(ctx: Context) -> None:
        try:
            await ctx.sleep(days=1)
        finally:
            raise KeyboardInterrupt

    book = Book(interrupted)
    with pytest.raises(KeyboardInterrupt):
        book.machine.close()


acted: list[str] = []


@activity
def act(what: str) -> None:
    acted.append(what)


@workflow
async def acts(ctx: Context) -> None:
    try:
        await ctx.wait_signal("go")
    finally:
        act("directly")


def test_an_activity_that_cleanup_calls_directly_does_not_run_when_the_run_leaves_memory() -> None:
    acted.clear()
    Book(acts).machine.close()
    assert not acted

    @workflow
    async def innocent(ctx: Context) -> int:
        return 7

    assert Book(innocent).result == 7


def test_an_activity_that_cleanup_calls_directly_blocks_the_run_that_is_cancelled() -> None:
    acted.clear()
    book = Book(acts)
    with pytest.raises(Nondeterministic, match="activity act"):
        book.cancelled()
    book.machine.close()
    assert not acted


def test_cleanup_of_a_run_that_leaves_memory_does_not_meddle_with_the_task_that_it_leaves_in() -> None:
    told: list[str] = []

    @workflow
    async def timed(ctx: Context) -> None:
        try:
            await ctx.sleep(days=1)
        finally:
            try:
                async with asyncio.timeout(1):  # noqa: ASYNC100 - what authors write
                    told.append("entered")
            except RuntimeError:
                told.append("refused")

    async def main() -> None:
        Book(timed).machine.close()
        assert asyncio.current_task() is not None

    asyncio.run(main())
    assert told == ["refused"]
