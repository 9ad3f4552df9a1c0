"""What workflow code does past its context: it harms nobody else, and is told with its line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.errors import ForeignAwait, InvalidDefinition, Nondeterministic
from tests.unit.workflow.book import Book


@activity
async def double(n: int) -> int:
    raise AssertionError("the core runs no activity")


async def _timed() -> None:
    async with asyncio.timeout(1):
        await asyncio.sleep(0)


async def _grouped() -> None:
    async with asyncio.TaskGroup():
        pass


@pytest.mark.parametrize("foreign", [_timed, _grouped])
def test_what_belongs_to_a_task_of_asyncio_is_refused_with_the_line(foreign: Any) -> None:
    """It would be the task of whoever started the run, and end with it."""

    @workflow
    async def outside(ctx: Context) -> None:
        await foreign()

    async def start() -> None:
        before = asyncio.current_task()
        with pytest.raises(ForeignAwait, match=r"inside a task|parent task.*test_past_ctx\.py:\d+"):
            Book(outside)
        assert asyncio.current_task() is before

    asyncio.run(start())


def test_a_task_of_the_codes_own_cannot_use_ctx() -> None:
    tasks: list[asyncio.Task[int]] = []

    @workflow
    async def beside(ctx: Context) -> None:
        tasks.append(asyncio.create_task(ctx.run(double, 1)))
        await ctx.wait_signal("go")

    async def start() -> None:
        book = Book(beside)
        with pytest.raises(InvalidDefinition, match="a task or thread of its own uses ctx"):
            await tasks[0]
        assert book.machine.take_commands() == []

    asyncio.run(start())


def test_an_activity_called_past_ctx_is_refused_even_if_the_code_catches_that() -> None:
    @workflow
    async def direct(ctx: Context) -> int:
        try:
            return await double(1)  # type: ignore[no-any-return] # the plain function's
        except Exception:  # noqa: BLE001 - that is the test
            return 0

    with pytest.raises(Nondeterministic, match=r"activity double \(.*test_past_ctx\.py:\d+\).*use ctx\.run\(double"):
        Book(direct)


class Odd(BaseException):
    """No Exception, as those of some libraries for timeouts and cancellation are."""


@pytest.mark.parametrize("error", [Odd, asyncio.CancelledError, GeneratorExit])
def test_whatever_the_code_raises_fails_the_run(error: type[BaseException]) -> None:
    @workflow
    async def odd(ctx: Context) -> None:
        await ctx.wait_signal("go")
        raise error

    @workflow
    async def odd_branch(ctx: Context) -> None:
        await ctx.gather(ctx.wait_signal("never"), odd.fn(ctx))

    for definition in (odd, odd_branch):
        (end,) = Book(definition).signalled("go")
        assert end.error is not None
        assert end.error["type"] == error.__name__
