"""Runs that ended long ago are removed, and nothing else."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, activity, errors, workflow
from node.workflow.core.queue import Queue
from node.workflow.log.sweep import Keep, kept_ms
from tests.integration.workflow.served import Durable, run, served, until

LARGE = "x" * 3_000
DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@activity
async def echo(value: str) -> str:
    return value


@workflow
async def large(ctx: Context, value: str) -> str:
    return await ctx.run(echo, value)


@workflow
async def waiting(ctx: Context) -> Any:
    return await ctx.wait_signal("go")


def dangling(store: Any) -> list[Any]:
    """Payloads whose count is not what the log says, and events that name none."""
    return store.rows(
        "WITH named AS (SELECT f.atom AS hash, count(*) AS n FROM log, json_each(log.body) f"
        " WHERE f.key LIKE '%\\_ref' ESCAPE '\\' GROUP BY 1)"
        " SELECT p.hash, p.uses, named.n FROM payloads p FULL JOIN named USING (hash) WHERE p.uses IS NOT named.n"
    )


def test_the_rule_that_says_most_applies() -> None:
    rules = (Keep(10), Keep(20, state="failed"), Keep(30, workflow="a"), Keep(None, workflow="a", state="failed"))
    assert kept_ms(rules, "b", "completed") == 10_000
    assert kept_ms(rules, "b", "failed") == 20_000
    assert kept_ms(rules, "a", "completed") == 30_000
    assert kept_ms(rules, "a", "failed") is None
    assert kept_ms((), "a", "completed") is None


@pytest.mark.parametrize("wrong", [{"after_s": -1}, {"after_s": float("nan")}, {"after_s": 1, "state": "running"}])
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidDefinition):
        Keep(**wrong)


def test_runs_past_their_time_go_with_what_only_they_name_and_open_ones_stay(path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        options = {"clock": lambda: now[0], "retention": [Keep(DAY), Keep(None, workflow="waiting")]}
        async with served(path, large, waiting, **options) as engine:
            for n in range(30):
                value = LARGE + "abc"[n % 3]
                await engine.start("large", value, f"r{n}", attributes={"n": n})
                await engine.result(f"r{n}")
                now[0] += 1
            await engine.start("waiting", run_id="open")
            await engine.start("waiting", run_id="closed")
            await engine.signal("closed", "go")
            now[0] += DAY - 15
            assert await engine._retention.sweep() == 16
            left = sorted(r.id for r in engine.list().runs)
            assert left == sorted(["closed", "open", *(f"r{n}" for n in range(16, 30))])
            assert engine.get("r29").unwrap() == LARGE + "c"
            assert dangling(engine._executive.store) == []
            assert engine.list(attributes={"n": 3}).runs == ()
            now[0] += DAY
            await engine._retention.sweep()
            store = engine._executive.store
            assert {r.id for r in engine.list().runs} == {"closed", "open"}
            assert store.rows("SELECT * FROM payloads") == []
            assert {r[0] for r in store.rows("SELECT DISTINCT workflow FROM log")} == {"closed", "open"}
            assert engine.stats().runs["completed"] == 1
            assert (await engine.start("large", "again", "r0")).created

    run(main)


def test_a_sweep_and_writers_do_not_hinder_each_other(path: Path) -> None:
    chance = random.Random(7)
    now = [1_000_000.0]

    async def main() -> None:
        async with served(path, large, clock=lambda: now[0], retention=[Keep(0.001)]) as engine:

            async def write() -> None:
                for n in range(60):
                    await engine.start("large", LARGE + str(chance.randrange(5)), f"{id(asyncio.current_task())}-{n}")
                    now[0] += 0.01

            sweeps = [engine._retention.sweep() for _ in range(3)]
            await asyncio.gather(*(write() for _ in range(5)), *sweeps)
            await until(lambda: engine.stats().runs["running"] == 0)
            now[0] += 1
            await engine._retention.sweep()
            store = engine._executive.store
            assert engine.list().runs == ()
            assert store.rows("SELECT * FROM payloads") == []
            assert dangling(store) == []

    run(main)


def test_a_run_whose_end_is_not_confirmed_stays(path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        durable = Durable()
        durable.open()
        options = {"clock": lambda: now[0], "retention": [Keep(1)], "durable": durable}
        async with served(path, waiting, **options) as engine:
            await engine.start("waiting", run_id="a")
            durable.shut()
            signalled = asyncio.ensure_future(engine.signal("a", "go"))
            await until(lambda: engine._executive.ends.hidden == ("a",))
            now[0] += DAY
            assert await engine._retention.sweep() == 0
            durable.open()
            await signalled
            assert (await engine.result("a")).state == "completed"
            assert await engine._retention.sweep() == 1

    run(main)


def test_what_counts_for_a_rate_limit_stays_as_long(path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        queue = Queue("q", rate_limit=1, rate_period_s=DAY)
        async with served(path, large, clock=lambda: now[0], retention=[Keep(1)], queues=[queue]) as engine:
            await engine.start("large", "a", "a", queue="q")
            await engine.result("a")
            now[0] += DAY / 2
            assert await engine._retention.sweep() == 0
            now[0] += DAY
            assert await engine._retention.sweep() == 1

    run(main)


def test_right_after_the_clock_jumped_nothing_is_taken_for_old(path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        async with served(path, large, clock=lambda: now[0], retention=[Keep(DAY)]) as engine:
            await engine.start("large", "a", "a")
            await engine.result("a")
            await until(lambda: engine._retention._sweeping is None)
            now[0] += 365 * DAY
            engine._retention.ring(engine._executive.now_ms())
            assert engine._retention._sweeping is None
            assert engine.get("a").state == "completed"

    run(main)


def test_a_sweep_that_the_clock_jumps_over_takes_nothing_for_old(path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        async with served(path, large, clock=lambda: now[0], retention=[Keep(DAY)]) as engine:
            await engine.start("large", "a", "a")
            await engine.result("a")
            await until(lambda: engine._retention._sweeping is None)
            now[0] += DAY / 2
            engine._retention._ages = None  # half a day went by in order
            engine._retention.ring(engine._executive.now_ms())
            under_way = engine._retention._sweeping
            assert under_way is not None
            now[0] += 365 * DAY
            await under_way
            assert engine.get("a").state == "completed"

    run(main)
