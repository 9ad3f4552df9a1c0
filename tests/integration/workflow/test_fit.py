"""What the next process does first: it replays open runs, long ones without holding the others up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.serve.loader import LONG_HISTORY
from tests.integration.workflow.served import run, served, until

STEPS = LONG_HISTORY // 2 + 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@activity
async def plus(n: int) -> int:
    return n + 1


@workflow
async def long(ctx: Context, steps: int) -> int:
    n = 0
    for _ in range(steps):
        n = await ctx.run(plus, n)
    return n + int(await ctx.wait_signal("more"))


@workflow
async def waits(ctx: Context, n: int) -> Any:
    return await ctx.wait_signal("go")


def test_a_long_history_is_replayed_bit_by_bit_and_misses_nothing_that_comes_meanwhile(path: Path) -> None:
    async def before() -> None:
        async with served(path, long, synchronous="normal") as engine:
            await engine.start("long", STEPS, "r")
            await until(lambda: engine.get("r").waits == ("signal more",))

    async def after() -> None:
        async with served(path, long) as engine:
            signalled = asyncio.ensure_future(engine.signal("r", "more", 1000))
            await asyncio.sleep(0)
            assert engine._executive.load("r").loading
            await signalled
            assert (await engine.result("r")).unwrap() == STEPS + 1000

    run(before)
    run(after)


def test_new_code_lists_the_runs_it_does_not_fit_before_they_move(path: Path) -> None:
    @workflow(name="waits")
    async def edited(ctx: Context, n: int) -> Any:
        await ctx.sleep(1) if n % 2 else None
        return await ctx.wait_signal("go")

    async def before() -> None:
        async with served(path, waits) as engine:
            for n in range(20):
                await engine.start("waits", n, f"r{n}")

    async def after() -> None:
        async with served(path, edited) as engine:
            await until(lambda: engine.stats().runs["blocked"] == 10)
            error = engine.get("r1").error or {}
            assert "test_fit.py:" in error["where"]
            assert engine.get("r0").state == "running"
            await engine._fit.wait()

    async def same_code_again() -> None:
        async with served(path, edited) as engine:
            assert engine._fit._task is None

    async def repaired() -> None:
        async with served(path, waits) as engine:
            await until(lambda: engine.stats().runs["blocked"] == 0)
            await engine.signal("r1", "go", "fits")
            assert (await engine.result("r1")).unwrap() == "fits"

    for life in (before, after, same_code_again, repaired):
        run(life)
