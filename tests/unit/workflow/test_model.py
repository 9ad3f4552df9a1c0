"""The replay core against a plain model in memory: whatever comes, in whatever order, however often it is replayed."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node.workflow import Context, activity, workflow
from node.workflow.errors import ActivityFailed, Cancelled, Mismatch, WaitTimeout
from node.workflow.values.events import Draft, Kind
from tests.unit.workflow.book import Book, replay

# A program is a list of instructions; the workflow carries it out, and the model says what it must come to.
STEP = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 9)),
    st.tuples(st.just("sleep"), st.integers(1, 9)),
    st.tuples(st.just("signal"), st.sampled_from("ab")),
    st.tuples(st.just("timed signal"), st.sampled_from("ab")),
    st.tuples(st.just("chance"), st.just(0)),
    st.tuples(st.just("patch"), st.sampled_from("pq")),
)
PROGRAM = st.lists(st.one_of(STEP, st.tuples(st.just("both"), st.tuples(STEP, STEP))), min_size=1, max_size=6)


@activity
async def act(n: int) -> int: ...  # type: ignore[empty-body] # never run


async def carry_out(ctx: Context, step: Any) -> Any:
    what, value = step
    match what:
        case "run":
            try:
                return await ctx.run(act, value)
            except ActivityFailed as error:
                return error.message
        case "sleep":
            return await ctx.sleep(value)
        case "signal":
            return await ctx.wait_signal(value)
        case "timed signal":
            try:
                return await ctx.wait_signal(value, timeout_s=5)
            except WaitTimeout:
                return "late"
        case "chance":
            return ctx.random()
        case "patch":
            return ctx.patched(value)
        case "both":
            return await ctx.gather(*(carry_out(ctx, tuple(part)) for part in value))


@workflow
async def program(ctx: Context, steps: list[Any]) -> list[Any]:
    said = []
    try:
        for step in steps:
            said.append(await carry_out(ctx, tuple(step)))
            ctx.set_state(len(said))
    except Cancelled:
        with contextlib.suppress(ActivityFailed):
            await ctx.run(act, -1)
        raise
    return said


class Core(RuleBasedStateMachine):
    """Inputs of every kind at a run of a generated program."""

    @initialize(steps=PROGRAM)
    def start(self, steps: list[Any]) -> None:
        self.book = Book(program, steps)
        self.sent: dict[str, list[int]] = {"a": [], "b": []}
        self.got: dict[int, Any] = {}  # the model: what each step came to
        self.cancelled = False

    def waiting(self, *kinds: Kind) -> list[int]:
        return [i for i, s in self.book.machine.pending.items() if s.command.kind in kinds]

    @property
    def is_open(self) -> bool:
        return self.book.machine.end is None

    @precondition(lambda self: self.waiting(Kind.ACTIVITY_SCHEDULED))
    @rule(data=st.data(), value=st.integers())
    def complete(self, data: st.DataObject, value: int) -> None:
        step = data.draw(st.sampled_from(self.waiting(Kind.ACTIVITY_SCHEDULED)))
        self.got[step] = value
        self.book.completed(step, value)

    @precondition(lambda self: self.waiting(Kind.ACTIVITY_SCHEDULED))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.waiting(Kind.ACTIVITY_SCHEDULED)))
        self.book.failed(step)

    @precondition(lambda self: any(s.due_ms for s in self.book.machine.pending.values()))
    @rule(data=st.data())
    def fire(self, data: st.DataObject) -> None:
        due = [i for i, s in self.book.machine.pending.items() if s.due_ms]
        self.book.fired(data.draw(st.sampled_from(due)))

    @precondition(lambda self: self.is_open)
    @rule(name=st.sampled_from("ab"), value=st.integers())
    def signal(self, name: str, value: int) -> None:
        self.sent[name].append(value)
        self.book.signalled(name, value)

    @precondition(lambda self: self.is_open and not self.cancelled)
    @rule()
    def cancel(self) -> None:
        self.cancelled = True
        self.book.cancelled()

    @precondition(lambda self: self.is_open and not self.book.machine.paused)
    @rule()
    def pause_and_resume(self) -> None:
        self.book.add(Kind.PAUSED, {})
        self.book.add(Kind.RESUMED, {})

    @precondition(lambda self: not self.is_open)
    @rule()
    def nothing_more_is_expected(self) -> None:
        assert not self.book.machine.expects(Draft(Kind.CANCEL_REQUESTED, {}))

    @invariant()
    def a_replay_is_where_the_live_run_is(self) -> None:
        live, again = self.book.machine, replay(program, self.book.events)
        assert not again.take_commands()
        assert {i: s.describe() for i, s in again.pending.items()} == {i: s.describe() for i, s in live.pending.items()}
        assert (again.user_state, again.end, again.now_ms) == (live.user_state, live.end, live.now_ms)
        assert again.kept_signals == live.kept_signals
        again.close()

    @invariant()
    def signals_are_taken_in_the_order_they_came_and_none_is_lost(self) -> None:
        for name, sent in self.sent.items():
            kept = [value for n, value in self.book.machine.kept_signals if n == name]
            assert sent[len(sent) - len(kept) :] == kept

    @invariant()
    def an_ended_run_says_what_its_steps_came_to(self) -> None:
        end = self.book.machine.end
        if end is None:
            return
        assert end.kind is (Kind.CANCELLED if self.cancelled and end.kind is not Kind.COMPLETED else Kind.COMPLETED)
        assert not self.book.machine.pending

    def teardown(self) -> None:
        if hasattr(self, "book"):
            self.book.machine.close()


class LongCore(Core):
    """The same walks, more of them and longer."""


Core.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
LongCore.TestCase.settings = settings(max_examples=2_000, stateful_step_count=40, deadline=None)
TestCore = Core.TestCase
TestLongCore = pytest.mark.long(pytest.mark.timeout(3600)(LongCore.TestCase))


def walked(steps: list[Any]) -> Book:
    """A run of this program to its end, everything answered in the order it was asked for."""
    book = Book(program, steps)
    while book.machine.end is None:
        number, step = next(iter(book.machine.pending.items()))
        match step.command.kind:
            case Kind.ACTIVITY_SCHEDULED:
                book.completed(number, number)
            case Kind.SIGNAL_AWAITED:
                book.signalled(step.command.name, number)
            case _:
                book.fired(number)
    return book


def commands(book: Book) -> list[Any]:
    return [(e.kind, e.body.get("name"), e.body.get("hash")) for e in book.events if "hash" in e.body]


@settings(max_examples=25, deadline=None)
@given(PROGRAM, PROGRAM)
def test_an_edit_of_a_body_that_changes_its_commands_is_caught_and_no_other(
    before: list[Any], after: list[Any]
) -> None:
    """The two bodies are two programs with one input: what differs is the code."""
    recorded = walked(before)

    @workflow(name="program")
    async def edited(ctx: Context, steps: list[Any]) -> list[Any]:
        said: list[Any] = await program.fn(ctx, after)
        return said

    same = commands(recorded) == commands(walked(after))
    try:
        machine = replay(edited, recorded.events)
        fits = not machine.take_commands()
        machine.close()
    except Mismatch:
        fits = False
    assert fits or not same
    assert same or not fits
