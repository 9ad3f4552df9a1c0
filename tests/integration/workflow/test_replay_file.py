"""Histories against code, without a server: for a test in an author's CI. And log messages, which no replay repeats."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from node.workflow import Context, activity, activity_log, replay, workflow
from node.workflow.log.replayfile import replay_file
from tests.integration.workflow.served import run, served

CODE = """
from node.workflow import Context, activity, workflow

@activity
async def charge(n: int) -> int:
    raise SystemExit("no activity runs in a replay")

@workflow
async def order(ctx: Context, n: int) -> int:
    paid = await ctx.run(charge, n)
    await ctx.sleep({seconds})
    return paid
"""


@activity
async def charge(n: int) -> int:
    activity_log.info("charged %d", n)
    return n


@workflow
async def order(ctx: Context, n: int) -> int:
    ctx.log.info("charging")
    paid = await ctx.run(charge, n)
    ctx.log.info("charged")
    await ctx.sleep(3600)
    return paid


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.db"

    async def main() -> None:
        async with served(path, order) as engine:
            await engine.start("order", 5, "o-1")
            while engine.get("o-1").waits != ("timer",):
                await engine.result("o-1", timeout_s=0.01)

    run(main)
    return path


def command(path: Path, code: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "node.workflow", "replay", str(path), "--code", f"{code}:order", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_history_is_replayed_with_no_side_effect(path: Path) -> None:
    before = path.read_bytes()
    (found,) = replay_file(path, [order])
    assert (found.run_id, found.verdict, found.events) == ("o-1", "fits", 4)
    assert path.read_bytes() == before


def test_code_that_does_not_fit_is_told_with_both_sides_and_the_line(path: Path) -> None:
    @workflow(name="order")
    async def edited(ctx: Context, n: int) -> int:
        await ctx.sleep(5)
        return await ctx.run(charge, n)

    (found,) = replay_file(path, [edited])
    assert found.problem is not None
    assert "activity_scheduled charge" in found.problem
    assert "timer_started" in found.problem
    assert "test_replay_file.py:" in found.problem


def test_replay_is_a_function_of_a_history(path: Path) -> None:
    async def main() -> None:
        async with served(path, order) as engine:
            history = engine.history("o-1")
            assert replay(history, order).problem is None

    run(main)


def test_the_command_ends_with_what_it_found(path: Path, tmp_path: Path) -> None:
    fits, edited = tmp_path / "app.py", tmp_path / "edited.py"
    fits.write_text(CODE.format(seconds=3600))
    edited.write_text(CODE.format(seconds=5))
    assert command(path, fits) == (0, "1 replayed, 0 do not fit\n")
    code, said = command(path, edited, "--run", "o-1")
    assert code == 1
    assert "o-1 (order) does not fit" in said
    assert "edited.py:11" in said
    assert command(path, fits, "--run", "nobody")[0] == 1
    assert command(tmp_path / "nothing.db", fits)[0] == 2


def test_a_message_of_a_workflow_is_logged_once_over_replays_with_its_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "workflow")
    path = tmp_path / "logged.db"

    async def before() -> None:
        async with served(path, order) as engine:
            await engine.start("order", 5, "o-1")
            while engine.get("o-1").waits != ("timer",):
                await engine.result("o-1", timeout_s=0.01)

    async def after() -> None:
        async with served(path, order) as engine:
            await engine.cancel("o-1")
            await engine.result("o-1")

    run(before)
    run(after)
    said = [r for r in caplog.records if r.name.startswith("workflow.")]
    assert [r.getMessage() for r in said] == ["charging", "charged 5", "charged"]
    assert {vars(r)["run_id"] for r in said} == {"o-1"}
    assert [vars(r).get("attempt") for r in said] == [None, 1, None]
