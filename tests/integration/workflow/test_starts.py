"""What happens when an id is taken; how runs are ended at once and found again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Engine, Started, errors, workflow
from tests.integration.workflow.served import run, served


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@workflow
async def waiting(ctx: Context, n: int = 0) -> Any:
    ctx.set_attributes(step="waits", urgent=None)
    return [n, await ctx.wait_signal("go")]


def test_an_existing_run_can_be_the_answer_whatever_it_was_started_with(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", 1, "a")
            assert not (await engine.start("waiting", 2, "a", conflict="use_existing")).created
            with pytest.raises(errors.RunExists):
                await engine.start("waiting", 1, "a", conflict="reject_duplicate")
            for policy in ("reject_different", "allow_duplicate", "allow_duplicate_failed_only"):
                with pytest.raises(errors.InputConflict):
                    await engine.start("waiting", 2, "a", conflict=policy)
            with pytest.raises(errors.InvalidInput):
                await engine.start("waiting", 1, "a", conflict="whatever")  # type: ignore[arg-type]  # on purpose

    run(main)


def test_a_run_that_has_ended_makes_room_and_stays_under_another_id(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            for n in range(3):
                assert (await engine.start("waiting", n, "a", conflict="allow_duplicate")).created
                await engine.signal("a", "go", n, signal_id="once")
                assert (await engine.result("a")).unwrap() == [n, n]
            assert (await engine.start("waiting", 2, "a", conflict="allow_duplicate_failed_only")).created is False
            assert engine.get("a~1").unwrap() == [0, 0]
            assert engine.get("a~2").unwrap() == [1, 1]
        async with served(path, waiting) as engine:
            assert engine.get("a").unwrap() == [2, 2]
            assert engine.history("a~1")[0].body["input"] == 0

    run(main)


def test_an_open_run_is_terminated_to_make_room(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", 1, "a")
            assert (await engine.start("waiting", 2, "a", conflict="terminate_existing")).created
            assert (engine.get("a").input, engine.get("a").state) == (2, "running")
            assert engine.get("a~1").state == "terminated"
            await engine.signal("a", "go", "x")
            assert (await engine.result("a")).unwrap() == [2, "x"]

    run(main)


def test_a_run_that_ends_by_itself_while_it_is_to_make_room_makes_room(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            for n in range(10):
                await engine.start("waiting", n, f"r{n}")
                started, _ = await asyncio.gather(  # the signal's end of the run is on its way into the file
                    replace(engine, n), engine.signal(f"r{n}", "go", "x")
                )
                assert started.created
                assert (engine.get(f"r{n}").input, engine.get(f"r{n}").state) == (100 + n, "running")
                assert engine.get(f"r{n}~1").unwrap() == [n, "x"]

    async def replace(engine: Engine, n: int) -> Started:
        await asyncio.sleep(0)
        return await engine.start("waiting", 100 + n, f"r{n}", conflict="terminate_existing")

    run(main)


def test_a_terminated_run_has_ended_and_its_code_does_not_clean_up(path: Path) -> None:
    cleaned: list[str] = []

    @workflow
    async def careful(ctx: Context) -> None:
        try:
            await ctx.sleep(days=1)
        finally:
            cleaned.append(ctx.run_id)
            await ctx.sleep(days=1)

    async def main() -> None:
        async with served(path, careful) as engine:
            await engine.start("careful", run_id="a")
            await engine.terminate("a", "it is in the way")
            ended = await engine.result("a")
            assert (ended.state, ended.error) == ("terminated", {"type": "Terminated", "message": "it is in the way"})
            with pytest.raises(errors.RunTerminated):
                ended.unwrap()
            with pytest.raises(errors.RunClosed):
                await engine.terminate("a")
            assert engine.history("a")[-1].kind == "terminated"
            assert engine._executive.store.timers("a") == {}

    run(main)


def test_a_blocked_run_can_be_terminated(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", 1, "a")
        async with served(path) as engine:
            await engine.signal("a", "go")
            assert engine.get("a").state == "blocked"
            await engine.terminate("a")
            assert engine.get("a").state == "terminated"

    run(main)


def test_runs_are_found_by_their_attributes_type_state_and_time(path: Path) -> None:
    now = [1_000.0]

    async def main() -> None:
        async with served(path, waiting, clock=lambda: now[0]) as engine:
            for n in range(6):
                now[0] = 1_000.0 + n
                facts = {"customer": "ann" if n % 2 else "bob", "amount": n, "urgent": True}
                await engine.start("waiting", n, f"r{n}", attributes=facts)
            await engine.terminate("r1")

            def found(**question: Any) -> list[str]:
                return sorted(r.id for r in engine.list(**question).runs)

            assert found(attributes={"customer": "ann"}) == ["r1", "r3", "r5"]
            assert found(attributes={"customer": "ann", "step": "waits"}, state="running") == ["r3", "r5"]
            assert found(attributes={"amount": 4}) == ["r4"]
            assert found(attributes={"urgent": True}) == []  # the code has removed it
            assert found(created_after=1_002, created_before=1_004) == ["r2", "r3"]
            assert found(closed_after=1_000) == ["r1"]
            assert found(workflow="nothing") == []
            assert engine.get("r3").attributes == {"customer": "ann", "amount": 3, "step": "waits"}
            with pytest.raises(errors.InvalidInput, match="attributes"):
                found(attributes={"a b": 1})
            first = engine.list(attributes={"customer": "bob"}, limit=2)
            assert [r.id for r in first.runs] == ["r4", "r2"]
            assert [r.id for r in engine.list(attributes={"customer": "bob"}, cursor=first.cursor).runs] == ["r0"]

    run(main)


@pytest.mark.parametrize(
    "attributes", [{"": 1}, {"a": []}, {"a": {}}, {"a": float("nan")}, {"a": 1 << 70}, {"a": "\ud800"}, {"1a": 1}]
)
def test_attributes_that_cannot_be_searched_by_are_refused(path: Path, attributes: dict[str, Any]) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            with pytest.raises(errors.InvalidInput, match="attributes"):
                await engine.start("waiting", 1, "a", attributes=attributes)
            assert engine.list().runs == ()

    run(main)


def test_a_history_is_read_in_pages(path: Path) -> None:
    @workflow
    async def long(ctx: Context) -> None:
        for _ in range(10):
            await ctx.wait_signal("go")

    async def main() -> None:
        async with served(path, long) as engine:
            await engine.start("long", run_id="a")
            for n in range(10):
                await engine.signal("a", "go", n)
            await engine.result("a")
            whole = engine.history("a")
            pages, after = list[Any](), 0
            while page := engine.history("a", after, 4):
                assert len(page) <= 4
                pages += page
                after = page[-1].seq
            assert pages == list(whole)

    run(main)
