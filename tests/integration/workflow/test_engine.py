"""The engine on a real file: starts, activities, timers, signals, ends."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Engine, Retry, activity, errors, workflow
from tests.integration.workflow.served import run, served, until

QUICK = Retry(max_attempts=3, initial_interval_s=0.01)


@dataclass
class Order:
    item: str
    amount: int = 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow
async def quadruple(ctx: Context, n: int) -> int:
    return await ctx.run(double, await ctx.run(double, n))


@workflow
async def waiting(ctx: Context) -> Any:
    ctx.set_state("waiting")
    return await ctx.wait_signal("go")


def test_a_run_ends_with_its_result(path: Path) -> None:
    async def main() -> None:
        async with served(path, quadruple) as engine:
            started = await engine.start("quadruple", 3)
            assert started.created
            ended = await engine.result(started.run_id)
            assert (ended.state, ended.result, ended.unwrap(), ended.input) == ("completed", 12, 12, 3)

    run(main)


def test_a_run_is_started_by_its_workflow_and_its_result_read_as_a_type(path: Path) -> None:
    @workflow
    async def more(ctx: Context, order: Order) -> Order:
        return Order(order.item, order.amount + 1)

    async def main() -> None:
        async with served(path, more) as engine:
            started = await engine.start(more, Order("pen"))
            ended = await engine.result(started.run_id)
            assert ended.unwrap(Order) == Order("pen", 2)
            with pytest.raises(errors.InvalidInput, match="result"):
                ended.unwrap(int)

    run(main)


def test_who_starts_or_signals_a_run_is_not_cancelled_by_a_timeout_in_its_code(path: Path) -> None:
    @workflow
    async def timed(ctx: Context) -> None:
        await ctx.wait_signal("go")
        async with asyncio.timeout(0.01):
            await ctx.wait_signal("never")

    async def main() -> None:
        async with served(path, timed) as engine:
            await engine.start("timed", run_id="t")
            await engine.signal("t", "go")
            await asyncio.sleep(0.05)  # longer than the timeout, which belongs to this task otherwise
            assert engine.get("t").state == "blocked"

    run(main)


def test_the_same_start_twice_is_one_run(path: Path) -> None:
    async def main() -> None:
        async with served(path, quadruple) as engine:
            first = await engine.start("quadruple", 3, "order-1")
            assert await engine.start("quadruple", 3, "order-1") == type(first)("order-1", False)
            await engine.result("order-1")
            assert not (await engine.start("quadruple", 3, "order-1")).created

    run(main)


def test_starts_at_once_with_one_id_are_one_run(path: Path) -> None:
    async def main() -> None:
        async with served(path, quadruple) as engine:
            starts = await asyncio.gather(*(engine.start("quadruple", 3, "order-1") for _ in range(20)))
            assert sum(s.created for s in starts) == 1
            await engine.result("order-1")
            assert engine.stats().steps == 2

    run(main)


def test_an_id_that_is_taken_by_another_start_is_a_conflict(path: Path) -> None:
    async def main() -> None:
        async with served(path, quadruple, waiting) as engine:
            await engine.start("quadruple", 3, "order-1")
            with pytest.raises(errors.InputConflict, match="input"):
                await engine.start("quadruple", 4, "order-1")
            with pytest.raises(errors.InputConflict, match="quadruple"):
                await engine.start("waiting", None, "order-1")

    run(main)


def test_bad_starts_are_refused_and_leave_nothing(path: Path) -> None:
    @workflow
    async def shop(ctx: Context, order: Order) -> None: ...

    async def main() -> None:
        async with served(path, shop) as engine:
            with pytest.raises(errors.UnknownWorkflow, match="shop"):
                await engine.start("shpo")
            with pytest.raises(errors.InvalidInput, match=r"input\.amount"):
                await engine.start("shop", {"item": "a", "amount": "x"})
            for bad in ("", "a b", "../x", "-x", "x" * 129, "a\n"):
                with pytest.raises(errors.InvalidInput, match="id"):
                    await engine.start("shop", {"item": "a"}, bad)
            assert engine.list().runs == ()

    run(main)


def test_what_is_not_there_is_told(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            for call in (engine.result("x"), engine.signal("x", "go"), engine.cancel("x")):
                with pytest.raises(errors.NoSuchRun):
                    await call
            with pytest.raises(errors.NoSuchRun):
                engine.get("x")
            with pytest.raises(errors.NoSuchRun):
                engine.history("x")

    run(main)


def test_an_engine_that_is_not_open_says_so(path: Path) -> None:
    async def main() -> None:
        engine = Engine(path, [waiting])
        with pytest.raises(errors.NotOpen):
            await engine.start("waiting")
        await engine.open()
        await engine.start("waiting", run_id="r")
        pending = asyncio.ensure_future(engine.result("r"))
        await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(errors.NotOpen):
            await pending
        with pytest.raises(errors.NotOpen):
            engine.get("r")

    run(main)


def test_names_that_are_no_text_are_refused_and_the_writer_lives(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            for name, signal_id in (("\ud800", None), ("go", "\ud800"), ("", None), ("go", "")):
                with pytest.raises(errors.InvalidInput):
                    await engine.signal("r", name, 1, signal_id)
            await engine.signal("r", "go", 2)
            assert (await engine.result("r")).unwrap() == 2

    run(main)


def test_no_more_activities_run_than_allowed(path: Path) -> None:
    now, most = 0, 0

    @activity
    async def count(n: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    @workflow
    async def wide(ctx: Context) -> None:
        await ctx.gather(*(ctx.run(count, n) for n in range(30)))

    async def main() -> None:
        async with served(path, wide, max_activities=3) as engine:
            started = await engine.start("wide")
            await engine.result(started.run_id)
            assert most == 3
            assert engine.stats().steps == 30

    run(main)


def test_signals_are_kept_until_they_are_waited_for_and_repeats_are_one(path: Path) -> None:
    @workflow
    async def two(ctx: Context) -> list[Any]:
        await ctx.sleep(0.05)
        return [await ctx.wait_signal("s"), await ctx.wait_signal("s")]

    async def main() -> None:
        async with served(path, two) as engine:
            await engine.start("two", None, "r")
            calls = [engine.signal("r", "s", "first", signal_id="a") for _ in range(5)]
            await asyncio.gather(*calls)
            await engine.signal("r", "s", "first", signal_id="a")
            await engine.signal("r", "s", "second", signal_id="b")
            assert (await engine.result("r")).unwrap() == ["first", "second"]
            with pytest.raises(errors.RunClosed, match="completed"):
                await engine.signal("r", "s")

    run(main)


def test_a_wait_for_a_signal_may_end_without_one(path: Path) -> None:
    @workflow
    async def brief(ctx: Context) -> str:
        try:
            await ctx.wait_signal("never", timeout_s=0.02)
        except errors.WaitTimeout:
            return "nobody came"
        return "not reached"

    async def main() -> None:
        async with served(path, brief) as engine:
            started = await engine.start("brief")
            assert (await engine.result(started.run_id)).unwrap() == "nobody came"

    run(main)


def test_cancel_stops_a_running_activity_and_lets_code_clean_up(path: Path) -> None:
    events: list[str] = []

    @activity
    async def endless() -> None:
        events.append("running")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            events.append("stopped")
            raise

    @activity
    async def tidy() -> None:
        events.append("tidied")

    @workflow
    async def long(ctx: Context) -> None:
        try:
            await ctx.run(endless)
        finally:
            await ctx.run(tidy)

    async def main() -> None:
        async with served(path, long) as engine:
            await engine.start("long", None, "r")
            await until(lambda: events)
            await asyncio.gather(engine.cancel("r"), engine.cancel("r"))
            ended = await engine.result("r")
            assert ended.state == "cancelled"
            assert sorted(events) == ["running", "stopped", "tidied"]
            with pytest.raises(errors.RunCancelled):
                ended.unwrap()
            with pytest.raises(errors.RunClosed):
                await engine.cancel("r")

    run(main)


def test_the_state_that_code_sets_is_seen_from_outside(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            shown = engine.get("r")
            assert (shown.user_state, shown.state, shown.waits) == ("waiting", "running", ("signal go",))
            with pytest.raises(errors.RunNotFinished):
                shown.unwrap()

    run(main)


def test_result_returns_the_run_as_it_is_when_the_time_is_up(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            assert (await engine.result("r", timeout_s=0.01)).state == "running"

    run(main)


def test_a_failed_run_says_why(path: Path) -> None:
    @workflow
    async def broken(ctx: Context) -> None:
        raise RuntimeError("it broke")

    async def main() -> None:
        async with served(path, broken) as engine:
            started = await engine.start("broken")
            ended = await engine.result(started.run_id)
            assert ended.error is not None
            assert (ended.state, ended.error["type"], ended.error["message"]) == ("failed", "RuntimeError", "it broke")
            with pytest.raises(errors.RunFailed, match="it broke"):
                ended.unwrap()

    run(main)


def test_runs_are_listed_newest_first_in_pages_and_by_state_and_name(path: Path) -> None:
    async def main() -> None:
        async with served(path, quadruple, waiting) as engine:
            for n in range(7):
                await engine.start("quadruple", n, f"q{n}")
                await engine.result(f"q{n}")
            await engine.start("waiting", None, "w")
            names: list[str] = []
            cursor: str | None = None
            for _ in range(10):
                page = engine.list(limit=3, cursor=cursor)
                names += [r.id for r in page.runs]
                cursor = page.cursor
                if cursor is None:
                    break
            assert sorted(names) == ["q0", "q1", "q2", "q3", "q4", "q5", "q6", "w"]
            assert len(names) == len(set(names))
            assert [r.id for r in engine.list(state="running").runs] == ["w"]
            assert {r.workflow for r in engine.list(workflow="quadruple").runs} == {"quadruple"}
            for bad in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"state": "done"}):
                with pytest.raises(errors.InvalidInput):
                    engine.list(**bad)
            assert {s: n for s, n in engine.stats().runs.items() if n} == {"running": 1, "completed": 7}

    run(main)


def test_large_values_are_stored_once_and_come_back_whole(path: Path) -> None:
    text = "x" * 100_000

    @activity
    async def echo(value: str) -> str:
        return value

    @workflow
    async def mirror(ctx: Context, value: str) -> str:
        return await ctx.run(echo, await ctx.run(echo, value))

    async def main() -> None:
        async with served(path, mirror) as engine:
            await engine.start("mirror", text, "r")
            assert (await engine.result("r")).unwrap() == text
            assert engine.get("r").input == text
            assert engine.history("r")[2].body["result"] == text

    run(main)
    assert path.stat().st_size < 500_000  # 2 texts (the value, the list of arguments), not 6


def test_runs_that_only_wait_cost_no_task_and_leave_memory(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, keep_idle=10) as engine:
            threads = threading.active_count()
            before = len(asyncio.all_tasks())
            await asyncio.gather(*(engine.start("waiting", None, f"r{n}") for n in range(500)))
            assert engine.stats().loaded_runs == 10
            assert len(asyncio.all_tasks()) == before
            assert threading.active_count() == threads
            await asyncio.gather(*(engine.signal(f"r{n}", "go", n) for n in range(500)))
            ends = [await engine.result(f"r{n}") for n in range(500)]
            assert [e.unwrap() for e in ends] == list(range(500))

    run(main)


def test_many_runs_share_commits(path: Path) -> None:
    async def main() -> None:
        async with served(path, quadruple) as engine:
            await asyncio.gather(*(engine.start("quadruple", n, f"r{n}") for n in range(300)))
            for n in range(300):
                assert (await engine.result(f"r{n}")).unwrap() == 4 * n
            stats = engine.stats()
            assert stats.events == 300 * 6
            assert stats.commits < 900

    run(main)


def test_timers_fire_by_the_clock_once_each_though_it_jumps(path: Path) -> None:
    now = time.time()

    @workflow
    async def sleeper(ctx: Context) -> list[str]:
        before = ctx.now()
        await ctx.sleep(hours=2)
        return [before.isoformat(), ctx.now().isoformat()]

    async def main() -> None:
        nonlocal now
        start = now
        async with served(path, sleeper, clock=lambda: now) as engine:
            await engine.start("sleeper", None, "r")
            now = start - 3600  # back an hour
            await engine.start("sleeper", None, "r2")
        async with served(path, sleeper, clock=lambda: now) as engine:
            assert engine.get("r").state == "running"
        now = start + 86400 * 365  # ahead a year
        async with served(path, sleeper, clock=lambda: now) as engine:
            for run_id in ("r", "r2"):
                before, after = (await engine.result(run_id)).unwrap()
                assert before < after
                assert [e.kind for e in engine.history(run_id)].count("timer_fired") == 1

    run(main)


def test_time_never_falls_within_a_run(path: Path) -> None:
    now = time.time()

    async def main() -> None:
        nonlocal now
        async with served(path, waiting, clock=lambda: now) as engine:
            await engine.start("waiting", None, "r")
            now -= 3600
            await engine.signal("r", "go")
            await engine.result("r")
            times = [e.at_ms for e in engine.history("r")]
            assert times == sorted(times)

    run(main)
