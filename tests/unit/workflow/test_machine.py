"""The pure core: what follows from a history, live and replayed."""

from __future__ import annotations

import asyncio
import gc
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.core.machine import Machine
from node.workflow.core.step import step
from node.workflow.errors import ActivityFailed, Cancelled, ForeignAwait, InvalidDefinition, WaitTimeout
from node.workflow.values.events import Event, Kind
from tests.unit.workflow.book import START_MS, Book, replay


@dataclass
class Order:
    item: str
    amount: int = 1


@activity
async def charge(order: Order) -> str:
    raise AssertionError("the core runs no activity")


@activity
async def double(n: int) -> int:
    raise AssertionError("the core runs no activity")


@workflow
async def checkout(ctx: Context, order: Order) -> str:
    receipt = await ctx.run(charge, order)
    await ctx.sleep(days=1)
    approved = await ctx.wait_signal("approved", timeout_s=60)
    return f"{receipt} {approved}"


def walked_checkout() -> Book:
    book = Book(checkout, {"item": "pen"})
    book.completed(1, "r-1")
    book.fired(2)
    book.signalled("approved", "yes")
    return book


def test_a_start_asks_for_the_first_step() -> None:
    book = Book(checkout, {"item": "pen"})
    assert book.kinds == ["started", "activity_scheduled"]
    assert book.events[1].body["name"] == "charge"
    assert book.events[1].body["args"] == [{"amount": 1, "item": "pen"}]


def test_each_result_leads_to_the_next_step_and_the_end() -> None:
    book = walked_checkout()
    assert book.kinds == [
        "started",
        "activity_scheduled",
        "activity_completed",
        "timer_started",
        "timer_fired",
        "signal_awaited",
        "signal_received",
        "completed",
    ]
    assert book.result == "r-1 yes"


def test_a_replay_of_every_beginning_ends_in_the_same_state_as_the_live_run() -> None:
    book = walked_checkout()
    live = Machine(checkout, "r1")
    for n, event in enumerate(book.events, 1):
        live.feed(event)
        again = replay(checkout, book.events[:n])
        assert {i: s.describe() for i, s in again.pending.items()} == {i: s.describe() for i, s in live.pending.items()}
        assert again.end == live.end
        assert again.take_commands() == replay(checkout, book.events[:n]).take_commands()


def test_a_history_cut_before_its_intents_asks_for_them_again() -> None:
    book = walked_checkout()
    for n, event in enumerate(book.events):
        following = book.events[n + 1] if n + 1 < len(book.events) else None
        if following is None or following.kind in ("activity_completed", "timer_fired", "signal_received"):
            continue
        decided = step(book.events[: n + 1], checkout, "r1", event.at_ms)
        assert [c.draft().event(following.seq, following.at_ms) for c in decided.commands] == [following]


def test_step_names_the_timers_that_are_due() -> None:
    book = Book(checkout, {"item": "pen"})
    book.completed(1, "r-1")
    due_ms = book.events[-1].body["due"]
    assert due_ms == book.events[-2].at_ms + 86_400_000
    assert step(book.events, checkout, "r1", due_ms - 1).due == ()
    assert step(book.events, checkout, "r1", due_ms).due == (2,)


def test_a_failed_activity_is_raised_where_it_was_asked_for() -> None:
    @workflow
    async def careful(ctx: Context) -> str:
        try:
            await ctx.run(double, 1)
        except ActivityFailed as error:
            return f"{error.activity} {error.type} {error.message} {error.attempts}"
        return "not reached"

    book = Book(careful)
    book.failed(1, "CardDeclined", "no money")
    assert book.result == "double CardDeclined no money 2"


def test_an_uncaught_failure_fails_the_run_with_its_type_and_message() -> None:
    @workflow
    async def careless(ctx: Context) -> None:
        await ctx.run(double, 1)

    book = Book(careless)
    (end,) = book.failed(1)
    assert end.kind is Kind.FAILED
    assert end.error is not None
    assert end.error["type"] == "ActivityFailed"
    assert "no" in end.error["message"]
    assert "test_machine.py" in end.error["traceback"]
    assert "branches.py" not in end.error["traceback"]


def test_a_failed_attempt_changes_nothing_for_the_code() -> None:
    book = Book(checkout, {"item": "pen"})
    assert not book.add(
        Kind.ATTEMPT_FAILED, {"id": 1, "attempt": 1, "due": START_MS + 500, "error": {"type": "E", "message": ""}}
    )
    pending = book.machine.pending[1]
    assert (pending.failed_attempts, pending.due_ms) == (1, START_MS + 500)
    assert pending.describe() == "activity charge, attempt 2"
    assert replay(checkout, book.events).pending[1].failed_attempts == 1


def test_results_come_back_as_the_declared_types() -> None:
    @activity
    async def order_of(name: str) -> Order: ...  # type: ignore[empty-body] # never run

    @workflow
    async def typed(ctx: Context) -> str:
        order = await ctx.run(order_of, "x")
        return type(order).__name__ + order.item

    book = Book(typed)
    book.completed(1, {"item": "ink"})
    assert book.result == "Orderink"


def test_signals_that_came_before_are_kept_in_order() -> None:
    @workflow
    async def twice(ctx: Context) -> list[Any]:
        await ctx.sleep(1)
        return [await ctx.wait_signal("s"), await ctx.wait_signal("s")]

    book = Book(twice)
    book.signalled("s", 1)
    book.signalled("other", 9)
    book.signalled("s", 2)
    book.fired(1)
    assert book.result == [1, 2]
    assert replay(twice, book.events).end == book.machine.end


def test_a_wait_that_ends_before_the_signal_raises_and_leaves_the_signal_for_the_next_wait() -> None:
    @workflow
    async def patient(ctx: Context) -> list[Any]:
        try:
            await ctx.wait_signal("s", timeout_s=1)
        except WaitTimeout as error:
            return [error.signal, await ctx.wait_signal("s")]
        return []

    book = Book(patient)
    book.fired(1)
    book.signalled("s", "late")
    assert book.result == ["s", "late"]


def test_a_signal_in_time_leaves_no_timer() -> None:
    book = Book(checkout, {"item": "pen"})
    book.completed(1, "r")
    book.fired(2)
    assert book.machine.pending[3].due_ms is not None
    book.signalled("approved", 1)
    assert not book.machine.pending


def test_gather_asks_for_all_at_once_and_returns_results_in_order() -> None:
    @workflow
    async def many(ctx: Context) -> list[int]:
        return await ctx.gather(*(ctx.run(double, n) for n in range(3)))

    book = Book(many)
    assert [e.body["args"] for e in book.events[1:]] == [[0], [1], [2]]
    book.completed(3, 4)
    book.completed(1, 0)
    book.completed(2, 2)
    assert book.result == [0, 2, 4]
    assert replay(many, book.events).end == book.machine.end


def test_gather_with_a_limit_starts_the_next_when_one_ends() -> None:
    @workflow
    async def limited(ctx: Context) -> list[int]:
        return await ctx.gather(*(ctx.run(double, n) for n in range(4)), limit=2)

    book = Book(limited)
    assert len(book.machine.pending) == 2
    (third,) = book.completed(2, 2)
    assert (third.id, third.payload) == (3, "[2]")
    book.completed(1, 0)
    book.completed(4, 6)
    book.completed(3, 4)
    assert book.result == [0, 2, 4, 6]


def test_a_failure_in_gather_cancels_the_others_and_is_raised() -> None:
    seen: list[str] = []

    @workflow
    async def group(ctx: Context) -> str:
        async def tidy() -> None:
            try:
                await ctx.run(double, 1)
            except Cancelled:
                seen.append("cancelled")
                raise

        try:
            await ctx.gather(tidy(), ctx.run(double, 2))
        except ActivityFailed as error:
            return error.message
        return "not reached"

    book = Book(group)
    book.failed(2, message="broken")
    assert (book.result, seen) == ("broken", ["cancelled"])
    assert not book.machine.expects(_result_of(1))


def _result_of(step_id: int) -> Any:
    from node.workflow.values.events import Draft

    return Draft(Kind.ACTIVITY_COMPLETED, {"id": step_id, "attempt": 1}, "1")


def test_gather_can_return_failures_as_values() -> None:
    @workflow
    async def all_of_them(ctx: Context) -> list[str]:
        results = await ctx.gather(ctx.run(double, 1), ctx.run(double, 2), return_exceptions=True)
        return [type(r).__name__ for r in results]

    book = Book(all_of_them)
    book.failed(1)
    book.completed(2, 4)
    assert book.result == ["ActivityFailed", "int"]


def test_gather_of_nothing_is_an_empty_list() -> None:
    @workflow
    async def nothing(ctx: Context) -> list[Any]:
        return await ctx.gather()

    assert Book(nothing).result == []


def test_branches_of_a_gather_may_take_several_steps() -> None:
    @workflow
    async def pairs(ctx: Context) -> list[int]:
        async def four_times(n: int) -> int:
            return await ctx.run(double, await ctx.run(double, n))

        return await ctx.gather(four_times(1), four_times(2))

    book = Book(pairs)
    book.completed(2, 4)
    book.completed(1, 2)
    assert [e.body["args"] for e in book.events if e.kind == "activity_scheduled"] == [[1], [2], [4], [2]]
    book.completed(4, 4)
    book.completed(3, 8)
    assert book.result == [4, 8]
    assert replay(pairs, book.events).end == book.machine.end


def test_cancel_ends_a_waiting_run() -> None:
    book = Book(checkout, {"item": "pen"})
    (end,) = book.cancelled()
    assert end.kind is Kind.CANCELLED
    assert replay(checkout, book.events).end == end


def test_a_cancelled_run_may_clean_up_with_activities() -> None:
    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.sleep(days=1)
        finally:
            await ctx.run(double, 0)

    book = Book(tidy)
    (cleanup,) = book.cancelled()
    assert cleanup.kind is Kind.ACTIVITY_SCHEDULED
    (end,) = book.completed(2, 0)
    assert end.kind is Kind.CANCELLED


def test_a_run_that_catches_the_cancellation_may_complete() -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        try:
            await ctx.sleep(days=1)
        except Cancelled:
            return "done anyway"
        return "slept"

    book = Book(stubborn)
    book.cancelled()
    assert book.result == "done anyway"


def test_cancel_reaches_every_branch_of_a_gather() -> None:
    @workflow
    async def wide(ctx: Context) -> None:
        await ctx.gather(ctx.run(double, 1), ctx.sleep(5), ctx.wait_signal("s"))

    book = Book(wide)
    (end,) = book.cancelled()
    assert end.kind is Kind.CANCELLED
    assert not book.machine.pending


def test_now_is_the_time_of_the_event_that_the_code_goes_on_from() -> None:
    @workflow
    async def clock(ctx: Context) -> list[str]:
        before = ctx.now()
        await ctx.sleep(10)
        return [before.isoformat(), ctx.now().isoformat()]

    book = Book(clock)
    book.fired(1)
    times = [datetime.fromtimestamp(e.at_ms / 1000, UTC).isoformat() for e in book.events if e.kind != "timer_started"]
    assert book.result == times[:2]


def test_random_and_uuid_are_the_same_on_every_replay_and_differ_between_draws() -> None:
    @workflow
    async def dice(ctx: Context) -> list[Any]:
        return [ctx.random(), ctx.random(), str(ctx.uuid()), str(ctx.uuid())]

    first, second = Book(dice).result, Book(dice).result
    assert first == second
    assert len(set(first)) == 4
    assert 0 <= first[0] < 1
    assert uuid.UUID(first[2]).version == 4
    assert first[0] == 0.10604784174452786  # the format of a seed's draws never changes


def test_set_state_is_what_the_code_said_last() -> None:
    @workflow
    async def progress(ctx: Context) -> None:
        ctx.set_state({"done": 0})
        await ctx.run(double, 1)
        ctx.set_state({"done": 1})
        await ctx.run(double, 1)

    book = Book(progress)
    assert book.machine.user_state == '{"done":0}'
    book.completed(1, 2)
    assert book.machine.user_state == '{"done":1}'
    assert replay(progress, book.events).user_state == '{"done":1}'


@pytest.mark.parametrize("foreign", [lambda: asyncio.sleep(0), lambda: asyncio.Event().wait()])
def test_awaiting_what_is_not_recorded_is_refused_with_the_line(foreign: Any) -> None:
    @workflow
    async def outside(ctx: Context) -> None:
        await foreign()

    async def start() -> None:
        Book(outside)

    with pytest.raises(ForeignAwait, match=r"test_machine\.py:\d+"):
        asyncio.run(start())


def test_what_is_no_activity_is_refused() -> None:
    @workflow
    async def plain(ctx: Context) -> None:
        await ctx.run(print, "x")  # type: ignore[arg-type] # that is the test

    (end,) = (Book(plain).machine.end,)
    assert end is not None
    assert end.error is not None
    assert end.error["type"] == InvalidDefinition.__name__


def test_a_result_without_json_form_fails_the_run() -> None:
    @workflow
    async def odd(ctx: Context) -> Any:
        return object()

    end = Book(odd).machine.end
    assert end is not None
    assert end.error is not None
    assert end.error["type"] == "NotStorable"


def test_leaving_memory_runs_no_cleanup_step_and_leaves_no_coroutine_behind() -> None:
    acted: list[str] = []

    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.gather(ctx.sleep(days=1), ctx.run(double, 1))
        finally:
            await ctx.run(double, 0)
            acted.append("after cleanup")

    book = Book(tidy)
    book.machine.close()
    gc.collect()
    assert acted == []
    assert book.machine.take_commands() == []


def test_leaving_memory_goes_on_throwing_into_code_that_catches_everything() -> None:
    ended: list[bool] = []

    @workflow
    async def deaf(ctx: Context) -> None:
        for _ in range(50):
            try:
                await ctx.sleep(1)
            except BaseException:  # noqa: BLE001, S112 - sloppy code that the library must survive
                continue
        ended.append(True)

    Book(deaf).machine.close()
    assert ended


def test_the_log_of_a_run_reads_the_same_for_ever() -> None:
    """The format on disk: a change here is a change of what old files mean."""
    book = walked_checkout()
    bodies = [json.dumps(e.body) for e in book.events]
    assert bodies == [
        '{"name": "checkout", "seed": "s", "input": {"item": "pen"}}',
        '{"id": 1, "name": "charge", "hash": "ea279c8a35e9c8ef", "args": [{"amount": 1, "item": "pen"}]}',
        '{"id": 1, "attempt": 1, "result": "r-1"}',
        '{"id": 2, "due": 1700086400003, "hash": "619d6a33617fad34"}',
        '{"id": 2}',
        '{"id": 3, "name": "approved", "due": 1700086460004, "hash": "d55d01d0341ed0ba"}',
        '{"name": "approved", "payload": "yes"}',
        '{"hash": "284ec99b732bb039", "result": "r-1 yes"}',
    ]


def test_an_event_of_an_unknown_kind_is_not_guessed() -> None:
    book = Book(checkout, {"item": "pen"})
    with pytest.raises(Exception, match="time_travelled"):
        book.machine.feed(Event(3, START_MS, "time_travelled", {}))
