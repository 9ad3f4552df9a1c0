"""A signal that was taken is seen by the code, whatever is cancelled in the moment that it comes."""

from __future__ import annotations

from typing import Any

import pytest

from node.workflow import Context, workflow
from node.workflow.errors import Cancelled, ScopeTimeout
from node.workflow.values.events import Kind
from tests.unit.workflow.book import Book, replay


def replays(book: Book) -> None:
    """Whatever was done live is what the log leads to."""
    machine = replay(book.definition, book.events)
    assert not machine.take_commands()
    assert machine.kept_signals == book.machine.kept_signals
    machine.close()


@workflow
async def bounded(ctx: Context) -> list[Any]:
    try:
        async with ctx.timeout(10):
            return ["in time", await ctx.wait_signal("x")]
    except ScopeTimeout:
        ctx.set_state("late")
    return ["late", await ctx.wait_signal("x"), await ctx.wait_signal("x")]


def paused(book: Book) -> Book:
    book.add(Kind.PAUSED, {})
    return book


def test_a_signal_that_came_in_a_pause_before_the_time_was_up_is_there_for_the_next_wait() -> None:
    book = paused(Book(bounded))
    book.signalled("x", "hello")
    book.fired(1)
    book.signalled("x", "again")
    book.add(Kind.RESUMED, {})
    assert book.result == ["late", "hello", "again"]
    replays(book)


def test_a_signal_that_came_in_a_pause_after_the_time_was_up_is_there_for_the_next_wait() -> None:
    book = paused(Book(bounded))
    book.fired(1)
    book.signalled("x", "hello")
    book.add(Kind.RESUMED, {})
    book.signalled("x", "again")
    assert book.result == ["late", "hello", "again"]
    replays(book)


def test_a_signal_that_a_cancelled_scope_did_not_see_is_there_for_the_code_behind_it() -> None:
    @workflow
    async def stoppable(ctx: Context) -> list[Any]:
        seen = []

        async def listen() -> None:
            async with ctx.scope() as scope:
                scopes.append(scope)
                seen.append(await ctx.wait_signal("x"))
            seen.append(await ctx.wait_signal("x"))

        async def stop() -> None:
            await ctx.wait_signal("stop")
            scopes.pop().cancel()

        scopes: list[Any] = []
        await ctx.gather(listen(), stop())
        return seen

    book = paused(Book(stoppable))
    book.signalled("stop")
    book.signalled("x", "hello")
    book.add(Kind.RESUMED, {})
    assert book.result == ["hello"]
    replays(book)


def test_signals_that_were_not_seen_keep_the_order_they_came_in() -> None:
    @workflow
    async def both(ctx: Context) -> list[Any]:
        async def listen() -> None:
            async with ctx.scope() as scope:
                scopes.append(scope)
                await ctx.wait_signal("x")

        async def stop_both() -> None:
            await ctx.wait_signal("stop")
            for scope in scopes:
                scope.cancel()

        scopes: list[Any] = []
        await ctx.gather(stop_both(), listen(), listen())
        return [await ctx.wait_signal("x") for _ in range(3)]

    book = paused(Book(both))
    book.signalled("stop")
    for n in range(3):
        book.signalled("x", n)
    book.add(Kind.RESUMED, {})
    assert book.result == [0, 1, 2]
    replays(book)


def test_a_signal_that_was_not_seen_goes_to_the_wait_that_is_there_already() -> None:
    @workflow
    async def other(ctx: Context) -> Any:
        async def listen() -> None:
            async with ctx.scope() as scope:
                scopes.append(scope)
                await ctx.wait_signal("x")

        async def stop_it() -> None:
            await ctx.wait_signal("stop")
            scopes.pop().cancel()

        scopes: list[Any] = []
        return (await ctx.gather(stop_it(), listen(), ctx.wait_signal("x")))[2]

    book = paused(Book(other))
    book.signalled("stop")
    book.signalled("x", "hello")
    book.add(Kind.RESUMED, {})
    assert book.result == "hello"
    replays(book)


@pytest.mark.parametrize("cancelled_first", [True, False])
def test_the_cleanup_of_a_cancelled_run_gets_the_signal_that_its_wait_did_not(cancelled_first: bool) -> None:
    @workflow
    async def asks(ctx: Context) -> Any:
        try:
            return await ctx.wait_signal("x")
        except Cancelled:
            return ["cleanup", await ctx.wait_signal("x")]

    book = Book(asks)
    if cancelled_first:
        book.cancelled()
        book.signalled("x", "hello")
    else:
        paused(book).signalled("x", "hello")
        book.cancelled()
    assert book.result == ["cleanup", "hello"]
    replays(book)


def test_a_signal_that_was_not_seen_goes_along_with_a_run_that_goes_on_as_new() -> None:
    @workflow
    async def looping(ctx: Context) -> None:
        try:
            async with ctx.timeout(10):
                await ctx.wait_signal("x")
        except ScopeTimeout:
            ctx.continue_as_new()

    book = paused(Book(looping))
    book.signalled("x", "hello")
    book.fired(1)
    book.add(Kind.RESUMED, {})
    assert book.kinds[-1] == "continued"
    assert book.machine.kept_signals == [("x", "hello")]
