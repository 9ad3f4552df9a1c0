"""Runs that are written in one commit: what breaks in one of them strands no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import pytest

from node.workflow import Context, errors, workflow
from node.workflow.values.run import CLOSED
from tests.integration.workflow.served import run, served, until

MANY = 12


class Stop(BaseException):
    """An author's own."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@workflow
async def waiting(ctx: Context) -> Any:
    return await ctx.wait_signal("go")


@workflow
async def untidy(ctx: Context) -> None:
    try:
        await ctx.sleep(days=1)
    finally:
        raise Stop("cleanup")


@workflow
async def counting(ctx: Context, n: int) -> None:
    await ctx.wait_signal("go")
    ctx.continue_as_new(n + 1)


def test_a_run_whose_cleanup_raises_what_it_likes_strands_no_other(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, untidy, keep_idle=0) as engine:
            names = [f"r{n}" for n in range(MANY)]
            await asyncio.gather(*(engine.start(untidy if n == 5 else waiting, None, r) for n, r in enumerate(names)))
            others = [r for n, r in enumerate(names) if n != 5]
            await asyncio.gather(*(engine.signal(r, "go", r) for r in others))
            assert [(await engine.result(r)).unwrap() for r in others] == others
            assert engine.get("r5").state == "running"

    run(main)


@pytest.mark.parametrize("ends", [False, True])
def test_what_breaks_behind_a_commit_strands_no_other_run_and_its_own_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    broke: list[str] = []

    async def main() -> None:
        async with served(path, waiting) as engine:
            executive = engine._executive
            touched = executive.watch.touched

            def breaks(run_id: str) -> None:
                row = executive.store.row(run_id)
                if run_id == "r5" and not broke and row is not None and (row.state in CLOSED) is ends:
                    broke.append(run_id)
                    raise apsw.IOError("a sector")
                touched(run_id)

            monkeypatch.setattr(executive.watch, "touched", breaks)
            names = [f"r{n}" for n in range(MANY)]
            await asyncio.gather(*(engine.start(waiting, None, r) for r in names))
            await asyncio.gather(*(engine.signal(r, "go", r) for r in names))
            assert [(await engine.result(r)).unwrap() for r in names] == names

    run(main)
    assert broke


def test_an_input_that_could_not_be_decided_upon_is_refused_and_may_be_repeated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broke: list[str] = []

    async def main() -> None:
        async with served(path, counting) as engine:
            await engine.start(counting, 1, "r")
            store = engine._executive.store
            archive_id = store.archive_id

            def breaks(run_id: str, before: str | None) -> str:
                if not broke:
                    broke.append(run_id)
                    raise apsw.IOError("a sector")
                return archive_id(run_id, before)

            monkeypatch.setattr(store, "archive_id", breaks)
            with pytest.raises(errors.NotRecorded, match="a sector"):
                await engine.signal("r", "go")
            await engine.signal("r", "go")
            await until(lambda: engine.get("r").continued_from is not None)
            assert engine.get("r").input == 2

    run(main)
