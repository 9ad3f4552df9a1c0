"""A clock that jumps back an hour and ahead a year: no timer is lost or fires twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Engine, Retry, Workflow, activity, activity_info, workflow
from node.workflow.errors import ActivityFailed, ScopeTimeout, WaitTimeout
from tests.integration.workflow.mortal import new_seed
from tests.integration.workflow.served import run, served, until

HOUR, YEAR = 3600.0, 365 * 86400.0
RUNS = 8
attempts: Counter[str] = Counter()


@activity(retry=Retry(max_attempts=3, initial_interval_s=60, jitter=0))
async def flaky(n: int) -> int:
    attempts[activity_info().idempotency_key] += 1
    if activity_info().attempt < 3:
        raise ConnectionError("not today")
    return n


async def slept(ctx: Context, n: int) -> int:
    await ctx.sleep(60 + n)
    return n


async def not_signalled(ctx: Context, n: int) -> int:
    try:
        await ctx.wait_signal("never", timeout_s=60 + n)
    except WaitTimeout:
        return n
    return -1


async def bounded(ctx: Context, n: int) -> int:
    try:
        async with ctx.timeout(60 + n):
            await ctx.wait_signal("never")
    except ScopeTimeout:
        return n
    return -1


async def retried(ctx: Context, n: int) -> int:
    return await ctx.run(flaky, n)


WAYS = (slept, not_signalled, bounded, retried)


@workflow
async def patient(ctx: Context, first: int) -> list[int]:
    """Waits in every way there is, one after the other, then in all of them at once."""
    got = [await WAYS[(first + n) % len(WAYS)](ctx, n) for n in range(len(WAYS))]
    return got + await ctx.gather(*(way(ctx, n) for n, way in enumerate(WAYS)))


class Clock:
    """The time of a test. Its engine looks at it when it is told to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.now_s = time.time()

    @asynccontextmanager
    async def served(self, *definitions: Workflow) -> AsyncIterator[Engine]:
        async with served(self._path, *definitions, clock=lambda: self.now_s, synchronous="normal") as engine:
            yield engine

    async def jump(self, engine: Engine, seconds: float) -> None:
        """By so much, and until what is due then has gone on."""
        self.now_s += seconds
        engine._executive._alarm.ring()  # the clock is the test's, so is its alarm
        await until(lambda: not any(one.writing for one in engine._executive._loaded.values()))
        await asyncio.sleep(0.001)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "workflow.db")


@pytest.mark.parametrize("rounds", [4, pytest.param(150, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
def test_whatever_the_clock_does_every_timer_fires_once_and_not_before_its_time(tmp_path: Path, rounds: int) -> None:
    seed = new_seed()
    print(f"SEED={seed}")
    draw = random.Random(seed)
    for number in range(rounds):
        attempts.clear()
        clock = Clock(tmp_path / f"{number}.db")
        run(lambda clock=clock: live(clock, draw))  # type: ignore[misc]  # a lambda with a default


async def live(clock: Clock, draw: random.Random) -> None:
    """A few lives of one engine with a wild clock, then one with a clock that goes on."""
    for _ in range(3):
        async with clock.served(patient) as engine:
            for n in range(RUNS):
                await engine.start("patient", n, f"r{n}")
            for _ in range(8):
                await clock.jump(engine, draw.choice([-HOUR, YEAR, -YEAR, 61.0, 1.0]))
        clock.now_s += draw.choice([-HOUR, YEAR, 0.0])
    async with clock.served(patient) as engine:
        for _ in range(2_000):
            due = engine.next_due()
            if all(engine.get(f"r{n}").closed for n in range(RUNS)):
                break
            await clock.jump(engine, 0 if due is None else max(0.0, due - clock.now_s))
        for n in range(RUNS):
            check(engine, f"r{n}")


def check(engine: Engine, run_id: str) -> None:
    """The run has its result, and each of its timers fired once, when it was due."""
    found = engine.get(run_id)
    assert found.unwrap() == [0, 1, 2, 3, 0, 1, 2, 3]
    history = engine.history(run_id)
    due = {e.body["id"]: e.body["due"] for e in history if "due" in e.body and e.kind != "attempt_failed"}
    fired = Counter(e.body["id"] for e in history if e.kind == "timer_fired")
    assert fired == Counter(dict.fromkeys(due, 1)), "a timer was lost, or fired twice"
    assert all(e.at_ms >= due[e.body["id"]] for e in history if e.kind == "timer_fired")
    tried = {key: count for key, count in attempts.items() if key.startswith(f"{run_id}:")}
    assert set(tried.values()) == {3}, "an attempt was lost, or made twice"


@workflow
async def when_told(ctx: Context) -> str:
    await ctx.wait_signal("first")
    await ctx.wait_signal("go")
    await ctx.sleep(60)
    return "slept"


@pytest.mark.parametrize("restarted", [False, True])
def test_once_the_clock_is_right_again_a_new_timer_counts_from_it(clock: Clock, restarted: bool) -> None:
    async def main() -> None:
        right = clock.now_s
        async with clock.served(when_told) as engine:
            await engine.start("when_told", run_id="r")
            clock.now_s = right + YEAR
            await engine.signal("r", "first")  # the log of the run is a year ahead from here on
            clock.now_s = right
            await engine.signal("r", "go")
            assert engine.next_due() == pytest.approx(right + 60, abs=0.01)
            if not restarted:
                await goes_on(engine)
        if restarted:
            async with clock.served(when_told) as engine:
                await goes_on(engine)

    async def goes_on(engine: Engine) -> None:
        await clock.jump(engine, 59)
        assert engine.get("r").state == "running"
        await clock.jump(engine, 2)
        assert (await engine.result("r")).unwrap() == "slept"
        times = [e.at_ms for e in engine.history("r")]
        assert times == sorted(times)

    run(main)


@activity(schedule_to_close_s=0.05, retry=Retry(max_attempts=1))
async def hang() -> None:
    await asyncio.Event().wait()


@workflow
async def hurried(ctx: Context) -> str:
    await ctx.wait_signal("go")
    try:
        await ctx.run(hang)
    except ActivityFailed as failed:
        return failed.message
    return ""


@pytest.mark.parametrize("restarted", [False, True])
def test_an_activity_has_no_more_time_than_its_own_when_the_clock_went_back(clock: Clock, restarted: bool) -> None:
    async def main() -> None:
        right, clock.now_s = clock.now_s, clock.now_s + YEAR
        async with clock.served(hurried) as engine:
            await engine.start("hurried", run_id="r")
            if not restarted:
                clock.now_s = right
            await engine.signal("r", "go")
            if not restarted:
                assert "schedule_to_close_s" in (await engine.result("r")).unwrap()
        clock.now_s = right
        async with clock.served(hurried) as engine:
            assert "schedule_to_close_s" in (await engine.result("r")).unwrap()

    run(main)


def test_an_attempt_that_runs_does_not_see_the_clock_jump(clock: Clock) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    @activity(timeout_s=20, heartbeat_timeout_s=20, schedule_to_close_s=20, retry=Retry(max_attempts=1))
    async def work() -> str:
        begun.set()
        await end.wait()
        return "done"

    @workflow
    async def working(ctx: Context) -> Any:
        return await ctx.run(work)

    async def main() -> None:
        async with clock.served(working) as engine:
            await engine.start("working", run_id="r")
            await begun.wait()
            for seconds in (-HOUR, YEAR, -YEAR):
                await clock.jump(engine, seconds)
            end.set()
            assert (await engine.result("r")).unwrap() == "done"

    run(main)
