"""Nothing acts on, and nobody is told of, what is not confirmed as durable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from node.workflow import Context, Engine, activity, configure, errors, open_database, workflow
from node.workflow.activities import database
from node.workflow.serve import gate as gate_module
from tests.integration.workflow.served import Durable, run, served, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(gate_module, "LONGEST_WAIT_S", 0.002)


effects: list[int] = []
on_effect: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def no_effects() -> None:
    effects.clear()
    on_effect.clear()


@activity
async def act(n: int) -> int:
    effects.append(n)
    if on_effect:
        on_effect.pop()()
    return n + 1


@workflow
async def two_steps(ctx: Context) -> int:
    return await ctx.run(act, await ctx.run(act, 0))


@workflow
async def waiting(ctx: Context) -> Any:
    return await ctx.wait_signal("go")


def in_the_file(path: Path, kind: str) -> int:
    """Events of this kind that are committed."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(db.execute("SELECT count(*) FROM log WHERE kind = ?", (kind,)).get)
    finally:
        db.close()


def gated(path: Path, test: Callable[[Engine, Durable], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        durable = Durable()
        async with served(path, two_steps, waiting, durable=durable, synchronous="normal", **options) as engine:
            await test(engine, durable)

    run(main)


def test_no_activity_is_dispatched_before_its_start_is_confirmed(path: Path) -> None:
    async def test(engine: Engine, durable: Durable) -> None:
        start = asyncio.ensure_future(engine.start("two_steps", None, "r"))
        await until(lambda: in_the_file(path, "activity_scheduled") == 1)
        await until(lambda: durable.calls)
        assert effects == []
        assert not start.done()
        durable.open()
        await start
        assert (await engine.result("r")).unwrap() == 2
        assert effects == [0, 1]

    gated(path, test)


def test_no_activity_is_dispatched_before_the_result_it_was_computed_from_is_confirmed(path: Path) -> None:
    async def test(engine: Engine, durable: Durable) -> None:
        durable.open()
        on_effect.append(durable.shut)
        await engine.start("two_steps", None, "r")
        await until(lambda: in_the_file(path, "activity_completed") == 1)
        await until(lambda: in_the_file(path, "activity_scheduled") == 2)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert effects == [0]
        durable.open()
        assert (await engine.result("r")).unwrap() == 2
        assert effects == [0, 1]

    gated(path, test)


def test_an_end_is_not_told_before_it_is_confirmed(path: Path) -> None:
    async def test(engine: Engine, durable: Durable) -> None:
        durable.open()
        await engine.start("waiting", None, "r")
        durable.shut()
        signal = asyncio.ensure_future(engine.signal("r", "go", 7))
        result = asyncio.ensure_future(engine.result("r"))
        await until(lambda: in_the_file(path, "completed") == 1)
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert (engine.get("r").state, engine.get("r").result) == ("running", None)
        assert [e.kind for e in engine.history("r")][-1] == "signal_received"
        assert engine.list(state="completed").runs == ()
        assert [r.id for r in engine.list(state="running").runs] == ["r"]
        assert (await engine.result("r", timeout_s=0.01)).state == "running"
        assert not signal.done()
        assert not result.done()
        durable.open()
        await signal
        assert (await result).unwrap() == 7
        assert engine.get("r").state == "completed"
        assert [e.kind for e in engine.history("r")][-1] == "completed"

    gated(path, test)


def test_ends_that_the_file_has_at_the_start_are_told_once_confirmed(path: Path) -> None:
    async def first() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            await engine.signal("r", "go", 7)
            await engine.result("r")

    async def test(engine: Engine, durable: Durable) -> None:
        assert engine.get("r").state == "running"
        again = asyncio.ensure_future(engine.start("waiting", None, "r"))
        result = asyncio.ensure_future(engine.result("r"))
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not result.done()
        assert not again.done()
        durable.open()
        assert (await result).unwrap() == 7
        assert not (await again).created

    run(first)
    gated(path, test)


def test_activities_of_a_log_that_is_opened_wait_for_the_first_confirmation(path: Path) -> None:
    async def crash() -> None:
        async with served(path, two_steps, durable=Durable(), confirm_timeout_s=0.01) as engine:
            with pytest.raises(errors.Unconfirmed):
                await engine.start("two_steps", None, "r")
        assert effects == []

    async def test(engine: Engine, durable: Durable) -> None:
        await until(lambda: durable.calls)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert effects == []
        durable.open()
        assert (await engine.result("r")).unwrap() == 2

    run(crash)
    gated(path, test)


def test_an_error_is_unknown_never_done_and_asked_again(path: Path) -> None:
    async def test(engine: Engine, durable: Durable) -> None:
        durable.failing = True
        start = asyncio.ensure_future(engine.start("two_steps", None, "r"))
        await until(lambda: durable.calls > 10)
        assert effects == []
        assert not start.done()
        assert engine.stats().failed_confirmations >= 10
        durable.failing = False
        durable.open()
        await start
        assert (await engine.result("r")).unwrap() == 2

    gated(path, test)


def test_a_call_that_is_not_confirmed_in_time_says_that_its_outcome_is_unknown(path: Path) -> None:
    async def test(engine: Engine, durable: Durable) -> None:
        with pytest.raises(errors.Unconfirmed, match="same id"):
            await engine.start("waiting", None, "r")
        with pytest.raises(errors.Unconfirmed):
            await engine.start("waiting", None, "r")
        with pytest.raises(errors.Unconfirmed):
            await engine.signal("r", "go", 1, signal_id="s")
        durable.open()
        assert not (await engine.start("waiting", None, "r")).created
        await engine.signal("r", "go", 1, signal_id="s") if engine.get("r").state == "running" else None
        assert (await engine.result("r")).unwrap() == 1

    gated(path, test, confirm_timeout_s=0.02)


def test_one_confirmation_serves_every_run_that_waits(path: Path) -> None:
    async def test(engine: Engine, durable: Durable) -> None:
        starts = [asyncio.ensure_future(engine.start("waiting", None, f"r{n}")) for n in range(100)]
        await until(lambda: in_the_file(path, "signal_awaited") == 100)
        durable.open()
        await asyncio.gather(*starts)
        assert durable.confirmed <= 3

    gated(path, test)


def test_a_result_is_recorded_only_when_what_its_activity_wrote_is_durable(path: Path, tmp_path: Path) -> None:
    """Two files are replicated apart: a log that is ahead of the other file would skip a step whose rows are lost."""
    configure(folder=tmp_path)

    @activity
    def write(n: int) -> None:
        db = open_database("docs.db")
        db.execute("CREATE TABLE IF NOT EXISTS docs (n)")
        db.execute("INSERT INTO docs VALUES (?)", (n,))
        db.close()
        effects.append(n)

    @workflow
    async def writer(ctx: Context) -> None:
        await ctx.run(write, 1)

    async def main() -> None:
        durable = Durable()
        async with served(path, writer, two_steps, effects_durable=durable) as engine:
            await engine.start("writer", None, "r")
            await until(lambda: effects and durable.calls)
            await engine.start("two_steps", None, "beside")
            assert (await engine.result("beside")).unwrap() == 2  # wrote no file: waits for nothing
            assert in_the_file(path, "completed") == 1
            durable.open()
            assert (await engine.result("r")).state == "completed"

    try:
        run(main)
    finally:
        configure()


def test_a_confirmation_while_a_commit_is_under_way_does_not_count_for_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(folder=tmp_path)
    begun, go = threading.Event(), threading.Event()
    count = database._count

    def slow_commit() -> bool:
        counted = count()
        if threading.current_thread() is slow_thread[0]:
            begun.set()
            go.wait(30)
        return counted

    monkeypatch.setattr(database, "_count", slow_commit)
    slow_thread: list[threading.Thread] = [threading.main_thread()]

    @activity
    def write(name: str) -> None:
        if name == "slow.db":
            slow_thread[0] = threading.current_thread()
        db = open_database(name)
        db.execute("CREATE TABLE t (n)")
        db.close()
        effects.append(1)

    @workflow
    async def writer(ctx: Context, name: str) -> None:
        await ctx.run(write, name)

    async def main() -> None:
        durable = Durable()
        durable.open()
        async with served(path, writer, effects_durable=durable) as engine:
            await engine.start("writer", "slow.db", "slow")
            await until(begun.is_set)
            await engine.start("writer", "quick.db", "quick")
            assert (await engine.result("quick")).state == "completed"  # confirmed while the other commit is under way
            durable.shut()
            asked = durable.calls
            go.set()
            await until(lambda: len(effects) == 2 and durable.calls > asked)
            assert in_the_file(path, "activity_completed") == 1
            durable.open()
            assert (await engine.result("slow")).state == "completed"

    try:
        run(main)
    finally:
        go.set()
        configure()
