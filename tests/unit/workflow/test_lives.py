"""Pauses, patches and runs that go on as new, in the pure core."""

from __future__ import annotations

from typing import Any

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.core.machine import Machine
from node.workflow.errors import Mismatch
from node.workflow.values.events import Draft, Kind
from tests.unit.workflow.book import Book, replay


@activity
async def old(n: int) -> int: ...  # type: ignore[empty-body] # never run


@activity
async def new(n: int) -> int: ...  # type: ignore[empty-body] # never run


async def before(ctx: Context) -> int:
    await ctx.run(old, 1)
    return await ctx.run(old, 2)


async def patched(ctx: Context) -> int:
    await ctx.run(old, 1)
    return await ctx.run(new if ctx.patched("better") else old, 2)


async def deprecated(ctx: Context) -> int:
    await ctx.run(old, 1)
    ctx.deprecate_patch("better")
    return await ctx.run(new, 2)


async def removed(ctx: Context) -> int:
    await ctx.run(old, 1)
    return await ctx.run(new, 2)


def fits(body: Any, events: Any) -> bool:
    try:
        machine = replay(workflow(name="w")(body), events)
    except Mismatch:
        return False
    rest = machine.take_commands()
    machine.close()
    return not rest


def written_by(body: Any) -> Book:
    book = Book(workflow(name="w")(body))
    book.completed(1, 1)
    return book


def test_a_patch_is_recorded_and_leads_new_runs_through_new_code() -> None:
    book = written_by(patched)
    assert book.kinds[3:] == ["patched", "activity_scheduled"]
    assert book.events[-1].body["name"] == "new"
    assert fits(patched, book.events)


def test_a_run_that_came_past_a_patch_before_it_was_there_goes_on_with_old_code() -> None:
    assert fits(patched, written_by(before).events)


def test_a_run_that_has_not_come_to_a_patch_yet_gets_new_code() -> None:
    book = Book(workflow(name="w")(before))
    machine = replay(workflow(name="w")(patched), book.events)
    machine.feed(written_by(patched).events[2])
    assert [c.kind for c in machine.take_commands()] == [Kind.PATCHED, Kind.ACTIVITY_SCHEDULED]


def test_a_patch_is_taken_out_in_two_steps() -> None:
    with_patch, announced = written_by(patched), written_by(deprecated)
    assert announced.events[3].body["deprecated"]
    assert fits(deprecated, with_patch.events)
    assert fits(deprecated, announced.events)
    assert fits(patched, announced.events)
    assert fits(removed, announced.events)
    assert not fits(removed, with_patch.events), "one that still needs the call"
    assert not fits(deprecated, written_by(before).events), "one that still needs the old code"


def test_what_a_run_got_first_from_a_patch_it_gets_always() -> None:
    async def looping(ctx: Context) -> None:
        for n in range(3):
            await ctx.run(new if ctx.patched("better") else old, n)

    async def without(ctx: Context) -> None:
        for n in range(3):
            await ctx.run(old, n)

    book = Book(workflow(name="w")(without))
    machine = replay(workflow(name="w")(looping), book.events[:2])
    assert not machine.take_commands()
    book.machine.close()
    machine.feed(written_by(before).events[2])
    assert [c.name for c in machine.take_commands()] == ["old"]
    machine.close()


@workflow
async def pausable(ctx: Context) -> list[Any]:
    return await ctx.gather(ctx.run(old, 1), ctx.wait_signal("go"), ctx.sleep(5))


def test_a_paused_run_takes_what_comes_and_asks_for_nothing() -> None:
    @workflow
    async def two(ctx: Context) -> int:
        return await ctx.run(old, await ctx.run(old, 1))

    book = Book(two)
    book.add(Kind.PAUSED, {})
    assert not book.completed(1, 7)
    assert not book.machine.expects(Draft(Kind.ACTIVITY_COMPLETED, {"id": 1, "attempt": 1}, "7"))
    (command,) = book.add(Kind.RESUMED, {})
    assert command.payload == "[7]"
    assert fits(two.fn, book.events)


def test_a_pause_within_a_gather_changes_no_result() -> None:
    book = Book(pausable)
    book.add(Kind.PAUSED, {})
    book.completed(1, 7)
    book.signalled("go", "now")
    book.fired(3)
    book.add(Kind.RESUMED, {})
    assert book.result == [7, "now", None]
    assert fits(pausable.fn, book.events)


def test_going_on_as_new_ends_a_run_with_the_next_ones_input() -> None:
    @workflow
    async def loops(ctx: Context, n: int) -> None:
        await ctx.gather(ctx.run(old, n), stop(ctx, n))

    async def stop(ctx: Context, n: int) -> None:
        await ctx.wait_signal("go")
        ctx.continue_as_new(n + 1)

    book = Book(loops, 1)
    book.signalled("go")
    assert book.kinds[-1] == "continued"
    assert book.events[-1].body["input"] == 2
    assert fits(loops.fn, book.events)


def test_ids_go_on_where_the_run_before_stopped() -> None:
    book = Book(workflow(name="w")(before))
    started = book.events[0]
    book.machine.close()
    machine = Machine(workflow(name="w")(before), "r1")
    machine.feed(type(started)(1, started.at_ms, "started", {**started.body, "last_id": 41}))
    assert [c.id for c in machine.take_commands()] == [42]


@pytest.mark.parametrize("kind", [Kind.PAUSED, Kind.RESUMED])
def test_pausing_twice_means_nothing_the_second_time(kind: Kind) -> None:
    book = Book(pausable)
    book.add(Kind.PAUSED, {})
    if kind is Kind.RESUMED:
        book.add(Kind.RESUMED, {})
    assert not book.machine.expects(Draft(kind, {}))
