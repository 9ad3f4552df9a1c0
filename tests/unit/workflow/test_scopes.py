"""Race, shield, scopes and timeouts: what is cancelled has cleaned up before the code goes on."""

from __future__ import annotations

from typing import Any

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.errors import Cancelled, InvalidDefinition, ScopeTimeout
from tests.unit.workflow.book import Book, replay


@activity
async def work(name: str) -> str: ...  # type: ignore[empty-body] # never run


@activity
async def undo(name: str) -> None: ...


def asked(book: Book) -> list[Any]:
    """The arguments of every activity that was asked for, and who asked."""
    return [(e.body["name"], *e.body["args"]) for e in book.events if e.kind == "activity_scheduled"]


def replays(book: Book) -> None:
    """Whatever was done live is what the log leads to, at every event of it."""
    for n in range(1, len(book.events) + 1):
        machine = replay(book.definition, book.events[:n])
        rest = machine.take_commands()
        machine.close()
    assert not rest


async def careful(ctx: Context, name: str) -> str:
    try:
        return await ctx.run(work, name)
    except Cancelled:
        await ctx.run(undo, name)
        raise


@workflow
async def racing(ctx: Context) -> Any:
    first = await ctx.race(careful(ctx, "a"), careful(ctx, "b"), careful(ctx, "c"))
    return [first.which, first.value]


def test_the_first_of_a_race_wins_and_the_losers_clean_up_before_it_is_told() -> None:
    book = Book(racing)
    book.completed(2, "B")
    assert asked(book)[3:] == [("undo", "a"), ("undo", "c")]
    assert book.machine.end is None
    book.completed(4)
    assert book.machine.end is None
    book.completed(5)
    assert book.result == [1, "B"]
    replays(book)


def test_a_failure_may_win_a_race() -> None:
    book = Book(racing)
    book.failed(1)
    book.completed(4)
    book.completed(5)
    assert book.kinds[-1] == "failed"
    replays(book)


def test_a_result_for_the_loser_of_a_race_is_no_longer_expected() -> None:
    book = Book(racing)
    book.completed(2, "B")
    assert set(book.machine.pending) == {4, 5}
    book.machine.close()


def test_a_race_of_nothing_is_refused() -> None:
    @workflow
    async def nobody(ctx: Context) -> None:
        await ctx.race()

    assert Book(nobody).events[-1].body["error"]["type"] == InvalidDefinition.__name__


@workflow
async def bounded(ctx: Context) -> str:
    try:
        async with ctx.timeout(10):
            return await careful(ctx, "a")
    except ScopeTimeout:
        return await ctx.run(work, "instead")


def test_a_block_whose_time_is_up_cleans_up_and_then_raises() -> None:
    book = Book(bounded)
    assert book.kinds[1:] == ["timer_started", "activity_scheduled"]
    book.fired(1)
    assert asked(book) == [("work", "a"), ("undo", "a")]
    book.completed(3)
    assert asked(book)[-1] == ("work", "instead")
    book.completed(4, "other")
    assert book.result == "other"
    replays(book)


def test_a_block_that_ends_in_time_leaves_no_timer() -> None:
    book = Book(bounded)
    book.completed(2, "done")
    assert book.result == "done"
    assert not book.machine.pending
    replays(book)


def test_a_run_that_is_cancelled_in_a_timeout_is_cancelled_and_not_timed_out() -> None:
    book = Book(bounded)
    book.cancelled()
    book.completed(3)
    assert book.kinds[-1] == "cancelled"
    replays(book)


def test_cleanup_that_waits_is_not_cut_short_by_the_time_of_its_block() -> None:
    book = Book(bounded)
    book.fired(1)
    assert [s.command.name for s in book.machine.pending.values()] == ["undo"]
    book.machine.close()


@workflow
async def nested(ctx: Context) -> list[str]:
    said = []
    try:
        async with ctx.timeout(20):
            try:
                async with ctx.timeout(10):
                    await ctx.run(work, "inner")
            except ScopeTimeout as error:
                said.append(f"inner {error.seconds:g}")
            await ctx.run(work, "outer")
    except ScopeTimeout as error:
        said.append(f"outer {error.seconds:g}")
    return said


def test_the_inner_time_ends_the_inner_block_only() -> None:
    book = Book(nested)
    book.fired(2)
    assert asked(book)[-1] == ("work", "outer")
    book.fired(1)
    assert book.result == ["inner 10", "outer 20"]
    replays(book)


def test_the_outer_time_ends_both_blocks_and_is_raised_at_the_outer_one() -> None:
    book = Book(nested)
    book.fired(1)
    assert book.result == ["outer 20"]
    replays(book)


@workflow
async def stopped_by_signal(ctx: Context) -> str:
    async with ctx.scope() as scope:

        async def watch() -> None:
            await ctx.wait_signal("stop")
            scope.cancel()

        await ctx.gather(careful(ctx, "a"), careful(ctx, "b"), watch())
    return f"stopped {scope.cancelled}"


def test_a_scope_cancelled_by_a_branch_in_it_ends_every_branch_and_the_code_goes_on_behind_it() -> None:
    book = Book(stopped_by_signal)
    book.signalled("stop")
    assert asked(book)[2:] == [("undo", "a"), ("undo", "b")]
    book.completed(4)
    book.completed(5)
    assert book.result == "stopped True"
    replays(book)


def test_a_scope_that_cancels_itself_ends_at_the_next_wait() -> None:
    @workflow
    async def itself(ctx: Context) -> str:
        async with ctx.scope() as scope:
            scope.cancel()
            await ctx.run(work, "never done")
            return "not reached"
        return "behind"

    book = Book(itself)
    assert book.result == "behind"
    assert not book.machine.pending
    replays(book)


def test_a_cancel_that_nothing_waited_for_does_not_reach_behind_its_scope() -> None:
    @workflow
    async def too_late(ctx: Context) -> str:
        async with ctx.scope() as scope:
            scope.cancel()
        return await ctx.run(work, "behind")

    book = Book(too_late)
    book.completed(1, "fine")
    assert book.result == "fine"


@workflow
async def shielded(ctx: Context) -> str:
    try:
        return await ctx.shield(ctx.run(work, "to the end"))
    finally:
        await ctx.run(undo, "after")


def test_a_shielded_step_ends_before_the_cancellation_is_raised() -> None:
    book = Book(shielded)
    book.cancelled()
    assert list(book.machine.pending) == [1]
    book.completed(1, "done")
    assert asked(book)[-1] == ("undo", "after")
    book.completed(2)
    assert book.kinds[-1] == "cancelled"
    replays(book)


def test_a_shielded_step_gives_its_result_when_nothing_is_cancelled() -> None:
    book = Book(shielded)
    book.completed(1, "done")
    book.completed(2)
    assert book.result == "done"


def test_a_cancellation_during_the_cleanup_of_a_gather_leaves_no_branch_behind() -> None:
    @workflow
    async def twice(ctx: Context) -> None:
        async with ctx.timeout(10):
            await ctx.gather(careful(ctx, "a"), ctx.run(work, "b"))

    book = Book(twice)
    book.failed(3)  # b fails: a cleans up
    assert asked(book)[-1] == ("undo", "a")
    book.fired(1)  # and the time is up meanwhile: the cleanup goes on
    assert list(book.machine.pending) == [4]
    book.completed(4)
    assert book.events[-1].body["error"]["type"] == "ScopeTimeout"
    replays(book)


def test_a_cancelled_run_beats_the_timeout_that_comes_during_its_cleanup() -> None:
    @workflow
    async def both(ctx: Context) -> None:
        async with ctx.timeout(10):
            await ctx.gather(careful(ctx, "a"))

    book = Book(both)
    book.cancelled()
    book.fired(1)
    book.completed(3)
    assert book.kinds[-1] == "cancelled"
    replays(book)


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e11])
def test_a_timeout_of_no_time_is_refused(seconds: float) -> None:
    @workflow
    async def never(ctx: Context) -> None:
        async with ctx.timeout(seconds):
            await ctx.run(work, "a")

    assert Book(never).events[-1].body["error"]["type"] == InvalidDefinition.__name__
