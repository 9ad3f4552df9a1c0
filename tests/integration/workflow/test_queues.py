"""Queues on a real file: limits, order, restarts."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, activity, errors, workflow
from node.workflow.core.queue import Queue
from tests.integration.workflow.served import run, served, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@workflow
async def waiting(ctx: Context) -> Any:
    return await ctx.wait_signal("go")


@workflow
async def nothing(ctx: Context) -> None: ...


def begun(engine: Any) -> list[str]:
    return sorted(r.id for r in engine.list(state="running").runs)


def test_as_many_runs_go_on_as_the_queue_allows_and_the_next_when_one_has_ended(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, queues=[Queue("mail", concurrency=2)]) as engine:
            for n in range(4):
                await engine.start("waiting", run_id=f"r{n}", queue="mail")
            await until(lambda: begun(engine) == ["r0", "r1"])
            assert engine.get("r2").state == "queued"
            assert [(q.name, depth) for q, depth in engine.queues()] == [("mail", 2)]
            await engine.signal("r0", "go", 1)
            await until(lambda: begun(engine) == ["r1", "r2"])
            await engine.cancel("r1")
            await until(lambda: begun(engine) == ["r2", "r3"])

    run(main)


def test_the_limits_of_keys_and_the_order_of_priorities_hold(path: Path) -> None:
    order: list[str] = []
    together: Counter[str] = Counter()

    @activity
    async def work(key: str, name: str) -> None:
        order.append(name)
        together[key] += 1
        assert together[key] <= 1
        await asyncio.sleep(0)
        together[key] -= 1

    @workflow
    async def job(ctx: Context, input: list[str]) -> None:
        await ctx.run(work, *input)

    async def main() -> None:
        queue = Queue("jobs", concurrency=2, per_key=1, paused=True)
        async with served(path, job, queues=[queue]) as engine:
            for n in range(20):
                key = "abc"[n % 3]
                await engine.start(
                    "job", [key, f"r{n}"], f"r{n}", queue="jobs", queue_key=key, priority=-1 if n == 19 else 0
                )
            await engine.put_queue(Queue("jobs", concurrency=2, per_key=1))
            for n in range(20):
                assert (await engine.result(f"r{n}")).state == "completed"
        assert order[0] == "r19"
        assert sorted(order) == sorted(f"r{n}" for n in range(20))

    run(main)


def test_a_rate_limit_lets_the_next_ones_go_when_its_time_has_come(path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        queue = Queue("slow", rate_limit=2, rate_period_s=60)
        async with served(path, waiting, queues=[queue], clock=lambda: now[0]) as engine:
            for n in range(5):
                await engine.start("waiting", run_id=f"r{n}", queue="slow")
            await until(lambda: len(begun(engine)) == 2)
            await asyncio.sleep(0.01)
            assert begun(engine) == ["r0", "r1"]
            now[0] += 61
            engine._executive._alarm.ring()  # the clock is the test's, so is its alarm
            await until(lambda: len(begun(engine)) == 4)
            now[0] -= 3_600  # what began in the future of this clock counts for nothing
            engine._executive._alarm.ring()
            now[0] += 7_200
            engine._executive._alarm.ring()
            await until(lambda: len(begun(engine)) == 5)

    run(main)


def test_a_queue_and_who_stands_in_it_outlive_the_process(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, queues=[Queue("mail", concurrency=1)]) as engine:
            for n in range(3):
                await engine.start("waiting", run_id=f"r{n}", queue="mail", priority=-n)
            await engine.signal("r1", "go", "early")
        async with served(path, waiting) as engine:
            await until(lambda: begun(engine) == ["r0"])
            await engine.signal("r0", "go")
            await until(lambda: begun(engine) == ["r2"])
            await engine.start("waiting", run_id="r3", queue="mail")
            await engine.signal("r2", "go")
            assert (await engine.result("r1")).unwrap() == "early"
            await until(lambda: begun(engine) == ["r3"])

    run(main)


def test_a_run_that_waits_in_a_queue_can_be_cancelled_and_its_code_never_runs(path: Path) -> None:
    async def main() -> None:
        async with served(path, nothing, queues=[Queue("mail", paused=True)]) as engine:
            await engine.start("nothing", run_id="r", queue="mail")
            await engine.cancel("r")
            assert (await engine.result("r")).state == "cancelled"
            assert [e.kind for e in engine.history("r")] == ["started", "cancel_requested", "cancelled"]

    run(main)


def test_time_in_a_queue_is_no_part_of_a_runs_own_time(path: Path) -> None:
    now = [1_000_000.0]

    @workflow
    async def sleeper(ctx: Context) -> float:
        began = ctx.now().timestamp()
        await ctx.sleep(10)
        return began

    async def main() -> None:
        async with served(path, sleeper, queues=[Queue("q", paused=True)], clock=lambda: now[0]) as engine:
            await engine.start("sleeper", run_id="r", queue="q")
            now[0] += 100
            await engine.put_queue(Queue("q"))
            await until(lambda: engine.get("r").state == "running")
            now[0] += 9
            engine._executive._alarm.ring()
            await asyncio.sleep(0.01)
            assert engine.get("r").state == "running"
            now[0] += 2
            engine._executive._alarm.ring()
            assert (await engine.result("r")).unwrap() == 1_000_100.0

    run(main)


def test_a_queue_that_is_not_there_and_a_priority_out_of_range_are_refused(path: Path) -> None:
    async def main() -> None:
        async with served(path, nothing, queues=[Queue("mail")]) as engine:
            for wrong in ({"queue": "male"}, {"queue": "mail", "priority": 101}, {"queue_key": "a"}):
                with pytest.raises(errors.InvalidInput):
                    await engine.start("nothing", run_id="r", **wrong)  # type: ignore[arg-type]  # as a caller may
            assert engine.list().runs == ()

    run(main)
