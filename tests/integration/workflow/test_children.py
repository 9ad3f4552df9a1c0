"""Child workflows on a real file: started once, told of once, ended as their parent's close says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from node.workflow import Context, Engine, activity, workflow
from node.workflow.core.children import OnParentClose
from node.workflow.core.letters import Letter
from node.workflow.errors import Cancelled, ChildFailed
from tests.integration.workflow.served import run, served, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow
async def doubled(ctx: Context, n: int) -> int:
    return await ctx.run(double, n)


@workflow
async def waits(ctx: Context) -> Any:
    try:
        return await ctx.wait_signal("go")
    except Cancelled:
        await ctx.run(double, 1)
        raise


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no")


@workflow
async def sums(ctx: Context, count: int) -> int:
    return sum(await ctx.gather(*(ctx.child(doubled, n) for n in range(count))))


@workflow
async def leaves(ctx: Context, policy: OnParentClose) -> str:
    child = ctx.start_child(waits, id="left", on_parent_close=policy)
    await ctx.wait_signal("end")
    return child.run_id


@workflow
async def leaves_late(ctx: Context) -> None:
    ctx.start_child(waits)
    await ctx.wait_signal("end")


def letters(path: Path) -> int:
    db = apsw.Connection(str(path))
    try:
        return int(db.execute("SELECT count(*) FROM letters").get)
    finally:
        db.close()


def kinds(engine: Engine, run_id: str) -> list[str]:
    return [str(e.kind) for e in engine.history(run_id)]


def test_a_parent_gets_the_results_of_its_children(path: Path) -> None:
    async def main() -> None:
        async with served(path, sums, doubled) as engine:
            await engine.start("sums", 10, "p")
            assert (await engine.result("p")).unwrap() == 90
            child = engine.get("p.3")
            assert (child.parent, child.result) == ("p", 4)
            assert kinds(engine, "p").count("child_completed") == 10
            await until(lambda: letters(path) == 0)

    run(main)


def test_a_child_that_fails_is_told_to_its_parent_with_its_error(path: Path) -> None:
    @workflow
    async def careful(ctx: Context) -> list[str]:
        try:
            await ctx.child(fails, id="c")
        except ChildFailed as error:
            return [error.workflow, error.run_id, error.state, error.type, error.message]
        return []

    async def main() -> None:
        async with served(path, careful, fails) as engine:
            await engine.start("careful", None, "p")
            assert (await engine.result("p")).unwrap() == ["fails", "c", "failed", "ValueError", "no"]

    run(main)


def test_an_id_that_somebody_else_has_refuses_the_child(path: Path) -> None:
    @workflow
    async def hopeful(ctx: Context) -> str:
        try:
            await ctx.child(waits, id="taken")
        except ChildFailed as error:
            return f"{error.state} {error.type}"
        return ""

    async def main() -> None:
        async with served(path, hopeful, waits) as engine:
            await engine.start("waits", None, "taken")
            await engine.start("hopeful", None, "p")
            assert (await engine.result("p")).unwrap() == "refused InputConflict"
            assert engine.get("taken").state == "running"

    run(main)


def test_a_child_is_signalled_and_cancelled_by_its_handle(path: Path) -> None:
    @workflow
    async def guiding(ctx: Context) -> list[Any]:
        told = ctx.start_child(waits, id="told")
        told.signal("go", {"n": 7})
        stopped = ctx.start_child(waits, id="stopped")
        stopped.cancel()
        try:
            await stopped
        except ChildFailed as error:
            return [await told, error.state]
        return []

    async def main() -> None:
        async with served(path, guiding, waits) as engine:
            await engine.start("guiding", None, "p")
            assert (await engine.result("p")).unwrap() == [{"n": 7}, "cancelled"]
            assert "activity_completed" in kinds(engine, "stopped"), "its cleanup ran"

    run(main)


def test_a_cancelled_parent_cancels_the_child_it_waits_for_and_awaits_its_end(path: Path) -> None:
    @workflow
    async def parent(ctx: Context) -> None:
        await ctx.child(waits, id="c")

    async def main() -> None:
        async with served(path, parent, waits) as engine:
            await engine.start("parent", None, "p")
            await until(lambda: "signal_awaited" in kinds(engine, "c") if engine.list(workflow="waits").runs else False)
            await engine.cancel("p")
            assert (await engine.result("p")).state == "cancelled"
            assert engine.get("c").state == "cancelled"
            assert kinds(engine, "p")[-2:] == ["child_failed", "cancelled"]

    run(main)


@pytest.mark.parametrize(("policy", "state"), [("terminate", "terminated"), ("cancel", "cancelled")])
def test_a_child_ends_with_its_parent_as_its_policy_says(path: Path, policy: str, state: str) -> None:
    async def main() -> None:
        async with served(path, leaves, waits) as engine:
            await engine.start("leaves", policy, "p")
            await engine.signal("p", "end")
            await engine.result("p")
            assert (await engine.result("left")).state == state

    run(main)


def test_an_abandoned_child_goes_on_when_its_parent_has_ended(path: Path) -> None:
    async def main() -> None:
        async with served(path, leaves, waits) as engine:
            await engine.start("leaves", "abandon", "p")
            await engine.signal("p", "end")
            await engine.result("p")
            await engine.signal("left", "go", 5)
            assert (await engine.result("left")).unwrap() == 5
            await until(lambda: letters(path) == 0)

    run(main)


@workflow
async def hasty(ctx: Context, how: tuple[str, OnParentClose]) -> None:
    end, policy = how
    if end == "continued":
        await ctx.wait_signal("never")
    await ctx.wait_signal("end")
    ctx.start_child(waits, id="left", on_parent_close=policy)
    if end == "fail":
        raise ValueError("no")
    if end == "continue":
        ctx.continue_as_new(("continued", policy))


@pytest.mark.parametrize("end", ["return", "fail", "continue"])
def test_a_child_whose_parent_closes_in_the_step_that_starts_it_never_begins(path: Path, end: str) -> None:
    async def main() -> None:
        async with served(path, hasty, waits) as engine:
            for run_id, policy in (("p", "terminate"), ("q", "cancel")):
                await engine.start("hasty", [end, policy], run_id)
                await engine.signal(run_id, "end")
                assert "child_started" in kinds(engine, f"{run_id}~1" if end == "continue" else run_id)
            await until(lambda: letters(path) == 0)
            assert not engine.list(workflow="waits").runs
        async with served(path, hasty, waits) as engine:
            assert not engine.list(workflow="waits").runs

    run(main)


@pytest.mark.parametrize("end", ["return", "fail", "continue"])
def test_an_abandoned_child_begins_though_its_parent_closes_in_the_step_that_starts_it(path: Path, end: str) -> None:
    async def main() -> None:
        async with served(path, hasty, waits) as engine:
            await engine.start("hasty", [end, "abandon"], "p")
            await engine.signal("p", "end")
            await until(lambda: engine.list(workflow="waits").runs)
            await engine.signal("left", "go", 5)
            assert (await engine.result("left")).unwrap() == 5
            await until(lambda: letters(path) == 0)

    run(main)


def test_a_child_that_begins_late_while_the_end_of_its_parent_is_written_ends_with_it(path: Path) -> None:
    async def main() -> None:
        async with served(path, leaves_late, waits) as engine:
            post, held = engine._executive.post, list[Letter]()
            deliver = post.deliver
            post.deliver = lambda letter: (held.append if letter.kind == "started" else deliver)(letter)  # type: ignore[method-assign] # as after a commit that failed
            for n in range(10):
                await engine.start("leaves_late", run_id=f"p{n}")
                await until(lambda n=n: len(held) > n)  # type: ignore[misc] # its default is an int
                ending = asyncio.ensure_future(engine.signal(f"p{n}", "end"))
                await asyncio.sleep(0)
                deliver(held[n])
                await ending
                await until(lambda n=n: engine.list(parent=f"p{n}", state="terminated").runs)  # type: ignore[misc] # so

    run(main)


@pytest.mark.parametrize("policy", ["terminate", "cancel"])
def test_a_policy_is_carried_out_by_the_next_process_when_the_first_one_died(path: Path, policy: str) -> None:
    async def before() -> None:
        async with served(path, leaves, waits) as engine:
            engine._executive.post.closed = lambda parent: None  # type: ignore[method-assign] # dies before it acts
            await engine.start("leaves", policy, "p")
            await engine.signal("p", "end")
            await engine.result("p")
            assert engine.get("left").state == "running"

    async def after() -> None:
        async with served(path, leaves, waits) as engine:
            assert (await engine.result("left")).closed

    run(before)
    run(after)


@pytest.mark.parametrize("lost", ["started", "child_completed", "signal_received"])
def test_a_letter_that_was_under_way_when_the_process_died_arrives_once(path: Path, lost: str) -> None:
    @workflow
    async def parent(ctx: Context) -> Any:
        child = ctx.start_child(waits, id="c")
        child.signal("go", 3)
        return await child

    async def before() -> None:
        async with served(path, parent, waits) as engine:
            post = engine._executive.post
            deliver = post.deliver
            post.deliver = lambda letter: deliver(letter) if letter.kind != lost else None  # type: ignore[method-assign] # dies
            await engine.start("parent", None, "p")
            await until(lambda: letters(path) > 0)
            for _ in range(20):
                await asyncio.sleep(0)

    async def after() -> None:
        async with served(path, parent, waits) as engine:
            assert (await engine.result("p")).unwrap() == 3
            assert kinds(engine, "c") == ["started", "signal_awaited", "signal_received", "completed"] or kinds(
                engine, "c"
            ) == ["started", "signal_received", "signal_awaited", "completed"]
            assert kinds(engine, "p").count("child_completed") == 1
            await until(lambda: letters(path) == 0)

    run(before)
    run(after)


def test_a_child_whose_workflow_this_code_does_not_have_waits_for_code_that_has_it(path: Path) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        return int(await ctx.child("doubled", 4, id="c"))

    async def before() -> None:
        async with served(path, parent) as engine:
            await engine.start("parent", None, "p")
            await until(lambda: engine.list(state="blocked").runs)

    async def after() -> None:
        async with served(path, parent, doubled) as engine:
            assert (await engine.result("p")).unwrap() == 8

    run(before)
    run(after)


def test_a_signal_from_one_run_reaches_another(path: Path) -> None:
    @workflow
    async def caller(ctx: Context) -> None:
        ctx.signal("other", "go", "hello")
        ctx.signal("nobody", "go", "hello")

    async def main() -> None:
        async with served(path, caller, waits) as engine:
            await engine.start("waits", None, "other")
            await engine.start("caller")
            assert (await engine.result("other")).unwrap() == "hello"
            await until(lambda: letters(path) == 0)

    run(main)
