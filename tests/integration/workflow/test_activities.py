"""Activities on a real file: attempts, timeouts, what they raise, side by side."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from node.workflow import ActivityInfo, Context, Retry, activity, activity_info, errors, workflow
from tests.integration.workflow.served import run, served

QUICK = Retry(max_attempts=3, initial_interval_s=0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


def test_attempts_are_repeated_with_one_idempotency_key(path: Path) -> None:
    seen: list[ActivityInfo] = []

    @activity(retry=QUICK)
    def flaky() -> str:
        seen.append(activity_info())
        if len(seen) < 3:
            raise ConnectionError("no")
        return "at last"

    @workflow
    async def persistent(ctx: Context) -> str:
        return await ctx.run(flaky)

    async def main() -> None:
        async with served(path, persistent) as engine:
            await engine.start("persistent", None, "r")
            assert (await engine.result("r")).unwrap() == "at last"
            assert [i.attempt for i in seen] == [1, 2, 3]
            assert {i.idempotency_key for i in seen} == {"r:1"}
            assert [e.kind for e in engine.history("r")].count("attempt_failed") == 2
            assert engine.stats().retries == 2

    run(main)


def test_an_activity_fails_for_good_after_its_last_attempt_or_at_once(path: Path) -> None:
    calls: list[str] = []

    @activity(retry=QUICK)
    async def broken() -> None:
        calls.append("broken")
        raise ValueError("no")

    @activity(retry=Retry(non_retryable=(LookupError,)))
    async def hopeless() -> None:
        calls.append("hopeless")
        raise KeyError("gone")

    @workflow
    async def both(ctx: Context) -> list[str]:
        failures = await ctx.gather(ctx.run(broken), ctx.run(hopeless), return_exceptions=True)
        return [f"{f.type} {f.attempts}" for f in failures if isinstance(f, errors.ActivityFailed)]

    async def main() -> None:
        async with served(path, both) as engine:
            started = await engine.start("both")
            assert (await engine.result(started.run_id)).unwrap() == ["ValueError 3", "KeyError 1"]
            assert sorted(calls) == ["broken", "broken", "broken", "hopeless"]

    run(main)


def test_an_attempt_past_its_timeout_fails_with_timeout_error(path: Path) -> None:
    release = threading.Event()

    @activity(retry=Retry(max_attempts=1), timeout_s=0.02)
    async def slow() -> None:
        await asyncio.sleep(3600)

    @activity(retry=Retry(max_attempts=1), timeout_s=0.02)
    def slow_thread() -> None:
        release.wait(30)

    @workflow
    async def impatient(ctx: Context) -> list[str]:
        failures = await ctx.gather(ctx.run(slow), ctx.run(slow_thread), return_exceptions=True)
        return [f"{f.type}: {f.message}" for f in failures if isinstance(f, errors.ActivityFailed)]

    async def main() -> None:
        async with served(path, impatient) as engine:
            started = await engine.start("impatient")
            ended = await engine.result(started.run_id)
            release.set()
            assert ended.unwrap() == ["TimeoutError: no end within timeout_s=0.02"] * 2

    run(main)


class Odd(BaseException):
    """No Exception, as those of some libraries for timeouts and cancellation are."""


@pytest.mark.parametrize(
    "error", [SystemExit(3), StopIteration("x"), asyncio.CancelledError(), TimeoutError("mine"), Odd("x")]
)
@pytest.mark.parametrize("sync", [True, False])
def test_whatever_an_activity_raises_is_its_outcome(path: Path, error: BaseException, sync: bool) -> None:
    @activity(name="odd", retry=Retry(max_attempts=1))
    async def odd() -> None:
        raise error

    @activity(name="odd", retry=Retry(max_attempts=1))
    def odd_thread() -> None:
        raise error

    @workflow
    async def careful(ctx: Context) -> str:
        try:
            await ctx.run(odd_thread if sync else odd)
        except errors.ActivityFailed:
            return "failed"
        return "not reached"

    async def main() -> None:
        async with served(path, careful) as engine:
            started = await engine.start("careful")
            assert (await engine.result(started.run_id)).unwrap() == "failed"

    run(main)


def test_activities_of_a_gather_run_side_by_side(path: Path) -> None:
    both_here = threading.Barrier(4)

    @activity
    def meet(n: int) -> int:
        both_here.wait(20)
        return n

    @workflow
    async def meeting(ctx: Context) -> list[int]:
        return await ctx.gather(*(ctx.run(meet, n) for n in range(4)))

    async def main() -> None:
        async with served(path, meeting) as engine:
            started = await engine.start("meeting")
            assert (await engine.result(started.run_id)).unwrap() == [0, 1, 2, 3]

    run(main)


def test_the_time_in_the_queue_for_a_thread_is_no_part_of_an_attempt(path: Path) -> None:
    @activity(retry=Retry(max_attempts=1), timeout_s=3)
    def nap(n: int) -> int:
        time.sleep(0.1)
        return n

    @workflow
    async def crowd(ctx: Context) -> list[int]:
        return await ctx.gather(*(ctx.run(nap, n) for n in range(40)))

    async def main() -> None:
        async with served(path, crowd, threads=1) as engine:
            started = await engine.start("crowd")
            assert (await engine.result(started.run_id)).unwrap() == list(range(40))

    run(main)
