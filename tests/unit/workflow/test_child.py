"""Children, in the pure core: what is recorded of them, and what runs have for each other."""

from __future__ import annotations

import pytest

from node.workflow import Context, workflow
from node.workflow.core.command import Command
from node.workflow.core.letters import Letter, of_command, of_end, read, refusal
from node.workflow.errors import ChildFailed, Mismatch, ScopeTimeout
from node.workflow.values.events import Kind
from node.workflow.values.run import RunFacts, RunRow
from tests.unit.workflow.book import Book, replay


@workflow
async def counted(ctx: Context, n: int) -> int: ...  # type: ignore[empty-body] # never run


@workflow
async def parent(ctx: Context) -> int:
    child = ctx.start_child(counted, 3)
    child.signal("more", 1)
    return 1 + await child


def ended(book: Book, step: int, result: int) -> list[Command]:
    return book.add(Kind.CHILD_COMPLETED, {"id": step}, result)


def test_a_child_is_recorded_with_its_id_its_policy_and_its_input() -> None:
    book = Book(parent)
    started, signalled = book.events[1:]
    assert (started.kind, started.body["name"], started.body["input"]) == ("child_started", "counted", 3)
    assert (started.body["child"], started.body["on_parent_close"]) == ("r1.1", "terminate")
    assert (signalled.kind, signalled.body["run"], signalled.body["payload"]) == ("signal_sent", "r1.1", 1)
    ended(book, 1, 4)
    assert book.result == 5
    assert not replay(parent, book.events).take_commands()


def test_a_result_that_the_parent_cannot_take_is_a_mismatch() -> None:
    with pytest.raises(Mismatch, match="whole number"):
        book = Book(parent)
        book.add(Kind.CHILD_COMPLETED, {"id": 1}, "four")


@pytest.mark.parametrize("kind", [Kind.ACTIVITY_COMPLETED, Kind.TIMER_FIRED])
def test_only_the_end_of_a_child_ends_the_wait_for_it(kind: Kind) -> None:
    book = Book(parent)
    with pytest.raises(Mismatch, match="not wait for that step"):
        book.add(kind, {"id": 1, "attempt": 1}, 4 if kind is Kind.ACTIVITY_COMPLETED else ...)


def test_an_edit_of_a_child_is_a_mismatch() -> None:
    async def another_input(ctx: Context) -> int:
        child = ctx.start_child(counted, 4)
        child.signal("more", 1)
        return 1 + await child

    async def another_policy(ctx: Context) -> int:
        child = ctx.start_child(counted, 3, on_parent_close="abandon")
        child.signal("more", 1)
        return 1 + await child

    async def another_signal(ctx: Context) -> int:
        child = ctx.start_child(counted, 3)
        child.signal("less", 1)
        return 1 + await child

    async def named(ctx: Context) -> int:
        child = ctx.start_child(counted, 3, id="mine")
        child.signal("more", 1)
        return 1 + await child

    events = Book(parent).events
    for edit in (another_input, another_policy, another_signal, named):
        with pytest.raises(Mismatch):
            replay(workflow(name="parent")(edit), events)


def test_a_child_that_nobody_awaits_does_not_hold_its_parent() -> None:
    @workflow
    async def careless(ctx: Context) -> str:
        return ctx.start_child(counted, 1, on_parent_close="abandon").run_id

    assert Book(careless).result == "r1.1"


def test_a_cancelled_wait_asks_the_child_to_end_and_awaits_that() -> None:
    book = Book(parent)
    book.cancelled()
    assert book.kinds[-1] == "cancel_sent"
    error = {"type": "Cancelled", "message": "m"}
    book.add(Kind.CHILD_FAILED, {"id": 1, "state": "cancelled", "error": error})
    assert book.kinds[-1] == "cancelled"
    assert not replay(parent, book.events).take_commands()


@workflow
async def shared(ctx: Context) -> list[int]:
    child = ctx.start_child(counted, 3)

    async def plus(n: int) -> int:
        return n + await child

    return [*await ctx.gather(plus(0), plus(10), plus(20)), await child]


def test_several_branches_await_one_child_and_each_gets_its_result() -> None:
    book = Book(shared)
    ended(book, 1, 4)
    assert book.result == [4, 14, 24, 4]
    assert not replay(shared, book.events).take_commands()


def test_several_branches_that_await_a_child_hear_of_its_failure() -> None:
    @workflow
    async def told(ctx: Context) -> list[str]:
        child = ctx.start_child(counted, 3)

        async def hears() -> str:
            try:
                return str(await child)
            except ChildFailed as error:
                return error.state

        return await ctx.gather(hears(), hears())

    book = Book(told)
    error = {"type": "E", "message": "m"}
    book.add(Kind.CHILD_FAILED, {"id": 1, "state": "failed", "error": error})
    assert book.result == ["failed", "failed"]


def test_one_of_two_who_await_a_child_may_stop_and_the_other_goes_on() -> None:
    @workflow
    async def one_leaves(ctx: Context) -> list[int]:
        child = ctx.start_child(counted, 3, on_parent_close="abandon")

        async def bounded() -> int:
            try:
                async with ctx.timeout(10):
                    return await child
            except ScopeTimeout:
                return -1

        async def waits() -> int:
            return await child

        return await ctx.gather(bounded(), waits(), bounded())

    book = Book(one_leaves)
    first, second = (i for i, step in book.machine.pending.items() if step.child is None)
    book.fired(first)
    book.fired(second)
    ended(book, 1, 4)
    assert book.result == [-1, 4, -1]
    assert not replay(one_leaves, book.events).take_commands()


def test_a_cancelled_run_with_several_who_await_a_child_asks_it_to_end_and_awaits_that() -> None:
    book = Book(shared)
    book.cancelled()
    assert book.kinds[1:] == ["child_started", "cancel_requested", *["cancel_sent"] * 3]
    error = {"type": "Cancelled", "message": "m"}
    book.add(Kind.CHILD_FAILED, {"id": 1, "state": "cancelled", "error": error})
    assert book.kinds[-1] == "cancelled"
    assert not replay(shared, book.events).take_commands()


def test_the_failure_of_a_child_names_it() -> None:
    @workflow
    async def careful(ctx: Context) -> str:
        try:
            await ctx.child(counted, 1, id="c-1")
        except ChildFailed as error:
            return f"{error.run_id} {error.state} {error.type} {error.message}"
        return ""

    book = Book(careful)
    error = {"type": "E", "message": "m", "traceback": "t"}
    book.add(Kind.CHILD_FAILED, {"id": 1, "state": "failed", "error": error})
    assert book.result == "c-1 failed E m"


def test_an_input_that_the_child_cannot_take_is_raised_where_it_is_asked_for() -> None:
    @workflow
    async def wrong(ctx: Context) -> None:
        await ctx.child(workflow(counted.fn), "three")

    assert Book(wrong).events[-1].body["error"]["type"] == "InvalidInput"


def test_the_default_id_of_a_child_of_a_child_is_bounded() -> None:
    book = Book(parent, run_id="r" * 128)
    child = book.events[1].body["child"]
    assert len(child) <= 128
    assert child.startswith("r" * 100 + ".")


def row(state: str, error: str | None = None) -> RunRow:
    facts = RunFacts(parent="p", parent_step=4, parent_policy="cancel")
    return RunRow("c", "counted", state, "h", 9, 0, "[]", None, error, 1, 2, facts)  # type: ignore[arg-type] # a state


def test_a_start_becomes_a_letter_that_survives_the_file() -> None:
    command = Command(4, Kind.CHILD_STARTED, "counted", "h", "3", facts={"child": "c", "on_parent_close": "cancel"})
    letter = of_command("p", command, "seed")
    assert letter is not None
    assert (letter.key, letter.kind, letter.payload) == (("p", 4, "c"), "started", "3")
    assert letter.facts["parent"] == "p"
    assert letter.facts["parent_step"] == 4
    assert read(letter.row()) == letter
    assert letter == of_command("p", command, "seed")


def test_the_end_of_a_child_becomes_a_letter_to_its_parent() -> None:
    assert of_end(row("completed"), "5") == Letter("c", 0, "p", Kind.CHILD_COMPLETED, {"id": 4}, "5")
    failed = of_end(row("failed", '{"type":"E","message":"m"}'), None)
    assert failed is not None
    assert failed.facts == {"id": 4, "state": "failed", "error": {"type": "E", "message": "m"}}
    cancelled = of_end(row("cancelled"), None)
    assert cancelled is not None
    assert cancelled.facts["error"] == {"type": "cancelled", "message": "the child was cancelled"}
    assert of_end(row("continued"), None) is None


def test_a_refused_start_goes_back_to_its_sender_in_place_of_the_letter() -> None:
    letter = Letter("p", 7, "c", Kind.STARTED, {"parent_step": 4})
    refused = refusal(letter, ValueError("taken"))
    assert (refused.target, refused.kind) == ("p", "child_failed")
    assert refused.facts == {"id": 4, "state": "refused", "error": {"type": "ValueError", "message": "taken"}}
