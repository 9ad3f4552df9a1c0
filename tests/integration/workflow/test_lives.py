"""Runs that go on as new, are paused, forked and asked, on a real file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Engine, activity, errors, workflow
from tests.integration.workflow.served import run, served, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


calls: list[int] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@activity
async def double(n: int) -> int:
    calls.append(n)
    return 2 * n


@workflow
async def counts(ctx: Context, n: int) -> int:
    n += await ctx.wait_signal("add", type=int)
    if n < 100:
        await ctx.run(double, n)
        ctx.continue_as_new(n)
    return n


@workflow
async def chain(ctx: Context, n: int) -> int:
    for _ in range(3):
        n = await ctx.run(double, n)
    return n


def kinds(engine: Engine, run_id: str) -> list[str]:
    return [str(e.kind) for e in engine.history(run_id)]


def test_a_run_goes_on_as_new_under_its_id_and_keeps_the_signals_nobody_waited_for(path: Path) -> None:
    async def main() -> None:
        async with served(path, counts) as engine:
            await engine.start("counts", 0, "c")
            for n in range(10):
                await engine.signal("c", "add", 10, signal_id=f"s{n}")
            assert (await engine.result("c")).unwrap() == 100
            assert len(engine.history("c")) < 20
            oldest, last = engine.get("c~1"), engine.get("c")
            assert (oldest.state, oldest.continued_to, last.continued_from) == ("continued", "c~2", "c~9")
            assert engine.get("c~9").continued_to == "c"
            assert engine.stats().runs["continued"] == 9
            assert engine.stats().runs["completed"] == 1
            assert not (await engine.start("counts", 0, "c")).created, "it is still the run that was started"

    run(main)


def test_a_signal_repeated_with_its_id_is_one_signal_over_a_run_that_went_on_as_new(path: Path) -> None:
    async def main() -> None:
        async with served(path, counts) as engine:
            await engine.start("counts", 0, "c")
            await engine.signal("c", "add", 10, signal_id="once")
            await until(lambda: engine.get("c").continued_from)
            await engine.signal("c", "add", 10, signal_id="once")
            await engine.signal("c", "add", 95, signal_id="last")
            assert (await engine.result("c")).unwrap() == 105

    run(main)


def test_the_steps_of_a_run_that_goes_on_as_new_never_share_a_key(path: Path) -> None:
    async def main() -> None:
        async with served(path, counts) as engine:
            await engine.start("counts", 0, "c")
            for _ in range(4):
                await engine.signal("c", "add", 30)
            await engine.result("c")
            ids = [
                e.body["id"]
                for r in ("c~1", "c~2", "c~3", "c")
                for e in engine.history(r)
                if e.kind == "activity_scheduled"
            ]
            assert len(ids) == len(set(ids)) == 3

    run(main)


def test_a_run_that_continues_without_waiting_is_blocked_and_not_the_engine(path: Path) -> None:
    @workflow
    async def spins(ctx: Context) -> None:
        ctx.continue_as_new()

    async def main() -> None:
        async with served(path, spins, chain) as engine:
            await engine.start("spins", None, "s")
            assert engine.get("s").state == "blocked"
            await engine.start("chain", 1, "c")
            assert (await engine.result("c")).unwrap() == 8

    run(main)


def test_a_paused_run_begins_nothing_new_and_keeps_what_comes(path: Path) -> None:
    release = asyncio.Event()

    @activity
    async def slow(n: int) -> int:
        await release.wait()
        return n + 1

    @workflow
    async def steps(ctx: Context) -> list[Any]:
        return [await ctx.run(slow, 1), await ctx.run(double, 4), await ctx.wait_signal("go")]

    async def main() -> None:
        async with served(path, steps) as engine:
            await engine.start("steps", None, "r")
            await until(lambda: engine.stats().running_activities)
            await engine.pause("r")
            await engine.pause("r")
            assert engine.get("r").paused
            release.set()
            await engine.signal("r", "go", "signalled")
            await until(lambda: "activity_completed" in kinds(engine, "r"))
            assert kinds(engine, "r")[-1] in ("activity_completed", "signal_received")
            assert kinds(engine, "r").count("activity_scheduled") == 1
        async with served(path, steps) as engine:
            assert engine.get("r").paused
            assert not calls
            await engine.resume("r")
            assert (await engine.result("r")).unwrap() == [2, 8, "signalled"]
            assert not engine.get("r").paused

    run(main)


def test_a_paused_run_that_is_cancelled_cleans_up(path: Path) -> None:
    @workflow
    async def tidy(ctx: Context) -> None:
        try:
            await ctx.sleep(3600)
        finally:
            await ctx.run(double, 1)

    async def main() -> None:
        async with served(path, tidy) as engine:
            await engine.start("tidy", None, "r")
            await engine.pause("r")
            await engine.cancel("r")
            assert (await engine.result("r")).state == "cancelled"
            assert calls == [1]

    run(main)


@workflow
async def shop(ctx: Context) -> int:
    items: list[str] = []
    ctx.on_query("items", lambda: items)
    ctx.on_query("count", lambda letter: sum(i.startswith(letter) for i in items))
    ctx.on_query("cheat", lambda: ctx.set_state("changed"))
    ctx.on_query("chance", lambda: ctx.random())
    ctx.on_query("fails", lambda: items[100])
    ctx.on_query("spoils", lambda: items.append("x"))
    while (item := await ctx.wait_signal("item")) != "end":
        items.append(item)
    return len(items)


def test_a_query_is_answered_by_the_code_and_changes_nothing(path: Path) -> None:
    async def main() -> None:
        async with served(path, shop) as engine:
            await engine.start("shop", None, "s")
            for item in ("pen", "paper", "ink"):
                await engine.signal("s", "item", item)
            before = kinds(engine, "s")
            assert await engine.query("s", "items") == ["pen", "paper", "ink"]
            assert await engine.query("s", "count", "p") == 2
            for name in ("cheat", "chance"):
                with pytest.raises(errors.QueryWrites):
                    await engine.query("s", name)
            with pytest.raises(errors.QueryFailed, match="IndexError"):
                await engine.query("s", "fails")
            with pytest.raises(errors.NoSuchQuery, match="items"):
                await engine.query("s", "nothing")
            with pytest.raises(errors.InvalidInput):
                await engine.query("s", "count")
            await engine.query("s", "spoils")
            assert await engine.query("s", "items") == ["pen", "paper", "ink"]
            assert kinds(engine, "s") == before
            await engine.signal("s", "item", "end")
            assert (await engine.result("s")).unwrap() == 3
            assert await engine.query("s", "count", "i") == 1

    run(main)


def test_a_fork_does_again_what_follows_and_nothing_before(path: Path) -> None:
    async def main() -> None:
        async with served(path, chain) as engine:
            await engine.start("chain", 1, "r")
            await engine.result("r")
            assert calls == [1, 2, 4]
            forked = await engine.fork("r", step=2, new_id="f")
            assert forked.created
            assert (await engine.result("f")).unwrap() == 8
            assert calls == [1, 2, 4, 2, 4]
            assert engine.get("f").forked_from == "r"
            assert not (await engine.fork("r", step=2, new_id="f")).created
            assert kinds(engine, "r") == kinds(engine, "f")
            with pytest.raises(errors.InputConflict):
                await engine.fork("r", seq=1, new_id="r")
            with pytest.raises(errors.InputConflict):
                await engine.fork("r", seq=1, new_id="f")  # it has the first events too, but shares more

    run(main)


def test_a_fork_of_an_open_run_is_repeated_safely_though_the_run_goes_on(path: Path) -> None:
    @workflow
    async def keep(ctx: Context) -> int:
        return sum([await ctx.wait_signal("n", type=int) for _ in range(3)])

    async def main() -> None:
        async with served(path, keep) as engine:
            await engine.start("keep", run_id="r")
            assert (await engine.fork("r", new_id="f")).created
            await engine.signal("r", "n", 1)
            assert not (await engine.fork("r", new_id="f")).created

    run(main)


def test_another_fork_under_an_id_that_is_taken_is_refused(path: Path) -> None:
    @workflow
    async def keep(ctx: Context) -> int:
        return sum([await ctx.wait_signal("n", type=int) for _ in range(3)])

    @workflow
    async def other(ctx: Context) -> int:
        return await ctx.wait_signal("n", type=int)

    async def main() -> None:
        async with served(path, keep, other) as engine:
            await engine.start("keep", run_id="r")
            await engine.fork("r", seq=2, new_id="f", workflow="other")
            assert not (await engine.fork("r", seq=2, new_id="f", workflow="other")).created
            assert not (await engine.fork("r", new_id="f", workflow="other")).created  # all there is, just as well
            for seq in (2, None):
                with pytest.raises(errors.InputConflict):
                    await engine.fork("r", seq=seq, new_id="f")  # by other code
            await engine.fork("r", seq=1, new_id="g")
            await engine.fork("g", new_id="h")
            await engine.signal("r", "n", 1)
            with pytest.raises(errors.InputConflict):
                await engine.fork("r", new_id="g")  # it shares less
            await engine.signal("g", "n", 1)
            assert not (await engine.fork("g", new_id="h")).created  # what "g" is of "r" is nothing to "h"

    run(main)


def test_a_fork_goes_on_with_other_code(path: Path) -> None:
    @workflow
    async def mended(ctx: Context, n: int) -> str:
        return f"mended {await ctx.run(double, n)}"

    async def main() -> None:
        async with served(path, chain, mended) as engine:
            await engine.start("chain", 1, "r")
            await engine.result("r")
            await engine.fork("r", seq=3, new_id="f", workflow="mended")
            assert (await engine.result("f")).state == "completed"
            assert engine.get("f").result == "mended 2"
            assert engine.stats().runs["completed"] == 2

    run(main)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"seq": 0}, "seq"), ({"seq": 99}, "seq"), ({"step": 9}, "step"), ({"seq": 1, "step": 1}, "step")],
)
def test_a_fork_from_nowhere_is_refused(path: Path, options: dict[str, int], field: str) -> None:
    async def main() -> None:
        async with served(path, chain) as engine:
            await engine.start("chain", 1, "r")
            await engine.result("r")
            with pytest.raises(errors.InvalidInput) as caught:
                await engine.fork("r", seq=options.get("seq"), step=options.get("step"))
            assert caught.value.field == field

    run(main)


def test_a_fork_where_a_child_is_open_is_refused(path: Path) -> None:
    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.child(chain, 1)

    async def main() -> None:
        async with served(path, parent, chain) as engine:
            await engine.start("parent", None, "p")
            await engine.result("p")
            with pytest.raises(errors.InvalidInput, match="child"):
                await engine.fork("p", seq=2)
            await engine.fork("p", new_id="f")
            assert (await engine.result("f")).unwrap() == 8

    run(main)
