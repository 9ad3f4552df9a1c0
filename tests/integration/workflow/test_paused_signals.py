"""A signal that was acknowledged while a run was paused is seen by its code, over a restart too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, workflow
from node.workflow.errors import ScopeTimeout
from tests.integration.workflow.served import run, served, until


@workflow
async def bounded(ctx: Context) -> list[Any]:
    try:
        async with ctx.timeout(0.05):
            return ["in time", await ctx.wait_signal("go")]
    except ScopeTimeout:
        ctx.set_state("late")
    return ["late", await ctx.wait_signal("go"), await ctx.wait_signal("go")]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_signal_that_was_told_as_delivered_before_the_time_was_up_is_not_lost(
    tmp_path: Path, restarted: bool
) -> None:
    path = tmp_path / "workflow.db"

    async def main() -> None:
        async with served(path, bounded) as engine:
            await engine.start(bounded, None, "r")
            await engine.pause("r")
            await engine.signal("r", "go", "hello")
            await until(lambda: engine.history("r")[-1].kind == "timer_fired")
            if not restarted:
                await engine.resume("r")
        async with served(path, bounded) as engine:
            if restarted:
                await engine.resume("r")
            assert engine.get("r").user_state == "late"
            await engine.signal("r", "go", "again")
            assert (await engine.result("r")).unwrap() == ["late", "hello", "again"]

    run(main)
