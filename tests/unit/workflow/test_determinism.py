"""Code that changed under an open run: noticed by kind, name and argument, with both sides of the difference."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from node.workflow import Context, Workflow, activity, workflow
from node.workflow.errors import Mismatch
from node.workflow.values.events import Event
from tests.unit.workflow.book import Book, replay


@activity
async def one(n: int) -> int: ...  # type: ignore[empty-body] # never run


@activity
async def two(n: int) -> int: ...  # type: ignore[empty-body] # never run


Body = Callable[..., Coroutine[Any, Any, Any]]


async def original(ctx: Context) -> int:
    a = await ctx.run(one, 1)
    await ctx.sleep(5)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


def history() -> list[Event]:
    book = Book(workflow(name="w")(original))
    book.completed(1, 10)
    book.fired(2)
    book.signalled("go")
    book.completed(4, 20)
    return book.events


async def other_activity(ctx: Context) -> int:
    a = await ctx.run(two, 1)
    await ctx.sleep(5)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


async def other_argument(ctx: Context) -> int:
    a = await ctx.run(one, 2)
    await ctx.sleep(5)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


async def other_kind(ctx: Context) -> int:
    a = await ctx.run(one, 1)
    await ctx.run(one, 5)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


async def other_duration(ctx: Context) -> int:
    a = await ctx.run(one, 1)
    await ctx.sleep(6)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


async def other_signal(ctx: Context) -> int:
    a = await ctx.run(one, 1)
    await ctx.sleep(5)
    await ctx.wait_signal("stop")
    return a + await ctx.run(two, 2)


async def one_step_more(ctx: Context) -> int:
    a = await ctx.run(one, 1)
    await ctx.run(one, 1)
    await ctx.sleep(5)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


async def one_step_less(ctx: Context) -> int:
    a = await ctx.run(one, 1)
    await ctx.wait_signal("go")
    return a + await ctx.run(two, 2)


async def ends_early(ctx: Context) -> int:
    return await ctx.run(one, 1)


async def side_by_side(ctx: Context) -> int:
    a, _ = await ctx.gather(ctx.run(one, 1), ctx.run(two, 2))
    await ctx.sleep(5)
    await ctx.wait_signal("go")
    return a


async def other_result(ctx: Context) -> int:
    return 1 + await original(ctx)


async def fails_now(ctx: Context) -> int:
    await original(ctx)
    raise ValueError("new")


EDITS = [
    other_activity,
    other_argument,
    other_kind,
    other_duration,
    other_signal,
    one_step_more,
    one_step_less,
    ends_early,
    side_by_side,
    other_result,
    fails_now,
]


def as_workflow(body: Body) -> Workflow:
    return workflow(name="w")(body)


def test_the_code_that_wrote_a_history_fits_it() -> None:
    assert not replay(as_workflow(original), history()).take_commands()


@pytest.mark.parametrize("edit", EDITS, ids=lambda f: f.__name__)
def test_an_edit_that_changes_the_commands_is_a_mismatch(edit: Body) -> None:
    with pytest.raises(Mismatch):
        replay(as_workflow(edit), history())


@pytest.mark.parametrize("edit", EDITS, ids=lambda f: f.__name__)
def test_an_edit_after_what_is_recorded_so_far_fits(edit: Body) -> None:
    """Only the start is recorded, nothing was asked for: any code may go on from there."""
    replay(as_workflow(edit), history()[:1])


def test_both_sides_of_the_difference_are_told() -> None:
    with pytest.raises(Mismatch) as caught:
        replay(as_workflow(other_argument), history())
    error = caught.value
    assert (error.run_id, error.seq) == ("r1", 2)
    assert "activity_scheduled one" in error.recorded
    assert "[1]" in error.recorded
    assert "activity_scheduled one" in error.code
    assert "[2]" in error.code
    assert "code that fits" in str(error)


def test_an_input_that_the_code_no_longer_takes_is_a_mismatch() -> None:
    async def takes_text(ctx: Context, text: str) -> None: ...

    async def takes_a_number(ctx: Context, number: int) -> None: ...

    events = Book(as_workflow(takes_text), "x").events
    with pytest.raises(Mismatch, match="whole number"):
        replay(as_workflow(takes_a_number), events)


def test_a_result_that_the_code_no_longer_takes_is_a_mismatch() -> None:
    @activity(name="one")
    async def one_as_text(n: int) -> str: ...  # type: ignore[empty-body] # never run

    async def edited(ctx: Context) -> str:
        return await ctx.run(one_as_text, 1)

    with pytest.raises(Mismatch, match="text"):
        replay(as_workflow(edited), history()[:3])


def test_a_result_for_a_step_that_nobody_asked_for_is_a_mismatch() -> None:
    events = history()
    with pytest.raises(Mismatch, match="activity_completed of step 1"):
        replay(as_workflow(original), [events[0], events[2]])


def test_an_input_after_the_end_is_a_mismatch() -> None:
    events = history()
    with pytest.raises(Mismatch, match="end"):
        replay(as_workflow(original), [*events, events[2]])
