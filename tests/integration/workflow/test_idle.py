"""What waits costs nothing, says when it is due, and can be followed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Engine, Event, activity, errors, workflow
from node.workflow.core.queue import Queue
from node.workflow.core.schedule import Schedule
from tests.integration.workflow.served import Durable, run, served, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow
async def waiting(ctx: Context) -> Any:
    return await ctx.run(double, await ctx.wait_signal("go"))


@workflow
async def sleeping(ctx: Context, seconds: int) -> None:
    await ctx.sleep(seconds)


def timers() -> int:
    return len([t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()])  # type: ignore[attr-defined]  # asyncio's own list


def test_thousands_of_runs_that_wait_are_no_tasks_and_no_timers(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, sleeping, synchronous="normal") as engine:
            tasks, before = len(asyncio.all_tasks()), timers()
            starts = [engine.start("waiting", run_id=f"w{n}") for n in range(2_500)]
            starts += [engine.start("sleeping", 1_000 + n, f"s{n}") for n in range(2_500)]
            await asyncio.gather(*starts)
            assert engine.stats().runs["running"] == 5_000
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            assert timers() <= before + 1
            assert engine.stats().loaded_runs <= 256

    run(main)


def test_the_next_due_time_is_that_of_timers_schedules_and_queues(path: Path) -> None:
    now = [1_767_225_600.0]
    plans = 0

    def planned() -> None:
        nonlocal plans
        plans += 1

    async def main() -> None:
        queue = Queue("q", rate_limit=1, rate_period_s=60)
        async with served(path, waiting, sleeping, clock=lambda: now[0], queues=[queue]) as engine:
            engine.on_plan(planned)
            await engine.start("waiting", run_id="w")
            assert engine.next_due() is None
            await engine.start("sleeping", 900, "s")
            assert engine.next_due() == now[0] + 900
            assert plans > 0
            await engine.schedules.put(Schedule("h", "waiting", "10 * * * *"))
            assert engine.next_due() == now[0] + 600
            await engine.start("waiting", run_id="q1", queue="q")
            await engine.start("waiting", run_id="q2", queue="q")
            await until(lambda: engine.next_due() == now[0] + 60)

    run(main)


def test_a_run_is_followed_from_any_event_to_its_end(path: Path) -> None:
    async def follow(engine: Any, after: int) -> list[Event]:
        found: list[Event] = []
        async for events in engine.follow("w", after):
            found += events
        return found

    async def main() -> None:
        durable = Durable()
        durable.open()
        async with served(path, waiting, durable=durable) as engine:
            await engine.start("waiting", run_id="w")
            whole, tail = (asyncio.ensure_future(follow(engine, after)) for after in (0, 2))
            await asyncio.sleep(0.01)
            durable.shut()
            signalled = asyncio.ensure_future(engine.signal("w", "go", 21))
            await asyncio.sleep(0.05)
            assert not whole.done()
            durable.open()
            await signalled
            events: Sequence[Event] = await whole
            assert list(events) == list(engine.history("w"))
            assert events[-1].kind == "completed"
            assert await tail == list(events)[2:]
            with pytest.raises(errors.NoSuchRun):
                await anext(engine.follow("x"))

    run(main)


@workflow
async def rounds(ctx: Context, n: int) -> int:
    await ctx.wait_signal("go")
    if n < 4:
        ctx.continue_as_new(n + 1)
    return n


def logs(engine: Engine, *run_ids: str) -> list[Event]:
    return [event for run_id in run_ids for event in engine.history(run_id)]


def test_a_run_that_goes_on_as_new_is_followed_through_each_of_its_logs(path: Path) -> None:
    async def follow(engine: Engine, after: int = 0, incarnation: int | None = None) -> list[Event]:
        return [event async for events in engine.follow("w", after, incarnation) for event in events]

    async def main() -> None:
        async with served(path, rounds) as engine:
            await engine.start("rounds", 0, run_id="w")
            slow = engine.follow("w")  # has seen the first events when the run has gone on four times
            seen = list(await anext(slow))
            quick = asyncio.ensure_future(follow(engine))
            for _ in range(5):
                await asyncio.sleep(0.01)
                await engine.signal("w", "go")
            assert (await engine.result("w")).unwrap() == 4
            whole = logs(engine, "w~1", "w~2", "w~3", "w~4", "w")
            assert [event.kind for event in whole if event.kind == "continued"] == ["continued"] * 4
            assert seen + [event async for events in slow for event in events] == whole
            assert await quick == whole
            assert await follow(engine) == logs(engine, "w")
            assert await follow(engine, 2, 0) == whole[2:]
            assert await follow(engine, 3, 2) == logs(engine, "w~3")[3:] + logs(engine, "w~4", "w")
            assert await follow(engine, 99, 3) == logs(engine, "w~4", "w")
            assert [event async for events in engine.follow("w~2") for event in events] == logs(engine, "w~2")
            assert [run.incarnation for run in engine.list(workflow="rounds").runs] == [4, 3, 2, 1, 0]

    run(main)


def test_logs_that_are_no_longer_kept_are_left_out_of_what_is_followed(path: Path) -> None:
    async def main() -> None:
        async with served(path, rounds) as engine:
            await engine.start("rounds", 2, run_id="w")
            for _ in range(3):
                await engine.signal("w", "go")
            await engine.result("w")
            await engine._executive.write(lambda db: db.execute("DELETE FROM workflows WHERE id = 'w~1'"), "w~1")
            followed = [event async for events in engine.follow("w", 2, 0) for event in events]
            assert followed == logs(engine, "w~2", "w")

    run(main)


def test_who_follows_a_run_hears_nothing_of_another_that_gets_its_id(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", run_id="w")
            follower = engine.follow("w")
            assert [event.kind for event in await anext(follower)] == ["started", "signal_awaited"]
            await engine.signal("w", "go", 1)
            await engine.result("w")
            await engine.start("waiting", run_id="w", conflict="allow_duplicate")
            assert [events async for events in follower] == []

    run(main)


def test_who_follows_is_told_when_the_engine_closes(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", run_id="w")
            follower = engine.follow("w", 2)
            following = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0.01)
        with pytest.raises(errors.NotOpen):
            await following

    run(main)


def test_what_is_counted_by_size(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, keep_idle=0) as engine:
            await engine.start("waiting", run_id="w")
            await engine.signal("w", "go", 1)
            await engine.result("w")
            stats = engine.stats()
            assert sum(stats.attempt_seconds.counts) == 1
            assert sum(stats.replay_seconds.counts) >= 1
            assert sum(stats.commit_batches.counts) == stats.commits

    run(main)
