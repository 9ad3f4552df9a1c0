"""A run that leaves memory takes nothing else with it, whatever its cleanup does."""

from __future__ import annotations

import asyncio

import pytest

from node.workflow import Context, workflow
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
