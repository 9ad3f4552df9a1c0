"""Heartbeats, and the limits of an activity's time, on a real file."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Retry, activity, activity_info, errors, heartbeat, workflow
from tests.integration.workflow.served import BOUND_S, run, served, until

QUICK = Retry(max_attempts=3, initial_interval_s=0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


def test_the_next_attempt_gets_the_details_of_the_last_heartbeat(path: Path) -> None:
    seen: list[Any] = []

    @activity(retry=QUICK)
    async def copies() -> int:
        done = activity_info().heartbeat_details or {"rows": 0}
        seen.append(done["rows"])
        for n in range(10):
            heartbeat({"rows": done["rows"] + n + 1})
        if len(seen) < 3:
            raise ConnectionError("cut off")
        return int(done["rows"])

    @workflow
    async def copy(ctx: Context) -> int:
        return await ctx.run(copies)

    async def main() -> None:
        async with served(path, copy) as engine:
            await engine.start("copy", None, "r")
            assert (await engine.result("r")).unwrap() == 20
            assert seen == [0, 10, 20]
            assert engine._executive.store.heartbeats("r") == {}, "what is done needs none"

    run(main)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_process_that_died_hands_its_heartbeat_to_the_next_one(path: Path, is_async: bool) -> None:
    seen: list[Any] = []
    stop = threading.Event()

    def begin() -> bool:
        seen.append(activity_info().heartbeat_details)
        heartbeat(["page", 7])
        return len(seen) > 1

    @activity(name="read")
    async def read_async() -> str:
        if not begin():
            await asyncio.Event().wait()
        return "done"

    @activity(name="read")
    def read_sync() -> str:
        if not begin():
            stop.wait(BOUND_S)
        return "done"

    @workflow
    async def reads(ctx: Context) -> str:
        return await ctx.run(read_async if is_async else read_sync)

    async def before() -> None:
        async with served(path, reads) as engine:
            await engine.start("reads", None, "r")
            await until(lambda: engine._executive.store.heartbeats("r"))

    async def after() -> None:
        async with served(path, reads) as engine:
            assert (await engine.result("r")).unwrap() == "done"
            assert seen == [None, ["page", 7]]

    run(before)
    run(after)
    stop.set()


def test_an_activity_that_beats_in_time_may_take_longer_than_its_heartbeat_timeout(path: Path) -> None:
    @activity(heartbeat_timeout_s=1.5, retry=Retry(max_attempts=1))
    async def steady() -> str:
        for _ in range(20):
            await asyncio.sleep(0.1)
            heartbeat()
        return "alive"

    @workflow
    async def long(ctx: Context) -> str:
        return await ctx.run(steady)

    async def main() -> None:
        async with served(path, long) as engine:
            await engine.start("long", None, "r")
            assert (await engine.result("r")).unwrap() == "alive"

    run(main)


def test_an_activity_that_falls_silent_fails(path: Path) -> None:
    @activity(heartbeat_timeout_s=0.02, retry=Retry(max_attempts=1))
    async def silent() -> None:
        heartbeat()
        await asyncio.Event().wait()

    @workflow
    async def trusting(ctx: Context) -> None:
        await ctx.run(silent)

    async def main() -> None:
        async with served(path, trusting) as engine:
            await engine.start("trusting", None, "r")
            ended = await engine.result("r")
            assert "no heartbeat within heartbeat_timeout_s=0.02" in (ended.error or {})["message"]

    run(main)


def test_a_heartbeat_tells_a_sync_activity_that_its_run_is_cancelled(path: Path) -> None:
    cleaned: list[str] = []
    began = threading.Event()

    @activity
    def busy() -> None:
        try:
            for _ in range(10_000):
                heartbeat()
                began.set()
                time.sleep(0.002)
        except errors.AttemptOver:
            cleaned.append("yes")
            raise

    @workflow
    async def w(ctx: Context) -> None:
        await ctx.run(busy)

    async def main() -> None:
        async with served(path, w) as engine:
            await engine.start("w", None, "r")
            await until(began.is_set)
            await engine.cancel("r")
            assert (await engine.result("r")).state == "cancelled"
            await until(lambda: cleaned)
            await until(lambda: engine.stats().lost_threads == 0)

    run(main)


def test_the_attempts_together_are_bounded_by_schedule_to_close(path: Path) -> None:
    @activity(schedule_to_close_s=0.05, retry=Retry(max_attempts=None, initial_interval_s=0.01))
    async def never() -> None:
        raise ConnectionError("no")

    @activity(schedule_to_close_s=0.05, retry=Retry(max_attempts=None, initial_interval_s=0.01))
    async def hangs() -> None:
        await asyncio.Event().wait()

    @workflow
    async def both(ctx: Context) -> list[str]:
        failures = await ctx.gather(ctx.run(never), ctx.run(hangs), return_exceptions=True)
        return [f"{f.type}: {f.message}" for f in failures if isinstance(f, errors.ActivityFailed)]

    async def main() -> None:
        async with served(path, both) as engine:
            await engine.start("both", None, "r")
            said = (await engine.result("r")).unwrap()
            assert said[0] == "ConnectionError: no"
            assert said[1] == "TimeoutError: no end within schedule_to_close_s=0.05"

    run(main)


def test_a_thread_that_is_lost_to_a_hanging_call_is_replaced(path: Path) -> None:
    stop = threading.Event()

    @activity(timeout_s=0.02, retry=Retry(max_attempts=1))
    def hangs() -> None:
        stop.wait(BOUND_S)

    @activity
    def quick() -> str:
        return "done"

    @workflow
    async def w(ctx: Context) -> str:
        await ctx.gather(*(ctx.run(hangs) for _ in range(3)), return_exceptions=True)
        return await ctx.run(quick)

    async def main() -> None:
        async with served(path, w, threads=1) as engine:
            await engine.start("w", None, "r")
            assert (await engine.result("r")).unwrap() == "done"
            assert engine.stats().lost_threads == 3
            stop.set()
            await until(lambda: engine.stats().lost_threads == 0)

    run(main)
