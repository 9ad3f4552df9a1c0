"""What a log means to the next process: runs go on, code that does not fit blocks, files are guarded."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import pytest

from node.workflow import Context, Engine, Retry, activity, errors, workflow
from node.workflow.log import sqlite as sqlite_module
from node.workflow.log.store import Store
from tests.integration.workflow.served import run, served, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow
async def waiting(ctx: Context) -> Any:
    first = await ctx.run(double, 4)
    return [first, await ctx.wait_signal("go")]


def test_runs_go_on_where_they_were(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            await until(lambda: engine.get("r").waits == ("signal go",))
        async with served(path, waiting) as engine:
            await engine.signal("r", "go", 1)
            assert (await engine.result("r")).unwrap() == [8, 1]
            assert engine.stats().steps == 0

    run(main)


def test_an_activity_that_was_running_runs_again_and_a_recorded_one_does_not(path: Path) -> None:
    calls: list[str] = []
    stuck = True

    @activity
    async def first() -> None:
        calls.append("first")

    @activity
    async def second() -> None:
        calls.append("second")
        if stuck:
            await asyncio.sleep(3600)

    @workflow
    async def both(ctx: Context) -> None:
        await ctx.run(first)
        await ctx.run(second)

    async def main() -> None:
        nonlocal stuck
        async with served(path, both) as engine:
            await engine.start("both", None, "r")
            await until(lambda: "second" in calls)
        stuck = False
        async with served(path, both) as engine:
            await engine.result("r")
        assert calls == ["first", "second", "second"]

    run(main)


def test_a_wait_for_the_next_attempt_survives_and_so_does_the_count(path: Path) -> None:
    attempts: list[int] = []
    broken = True

    @activity(retry=Retry(max_attempts=3, initial_interval_s=0.05))
    async def flaky() -> str:
        from node.workflow import activity_info

        attempts.append(activity_info().attempt)
        if broken:
            raise ValueError("no")
        return "ok"

    @workflow
    async def persistent(ctx: Context) -> str:
        return await ctx.run(flaky)

    async def main() -> None:
        nonlocal broken
        async with served(path, persistent) as engine:
            await engine.start("persistent", None, "r")
            await until(lambda: [e.kind for e in engine.history("r")][-1] == "attempt_failed")
        broken = False
        async with served(path, persistent) as engine:
            assert (await engine.result("r")).unwrap() == "ok"
        assert attempts == [1, 2]

    run(main)


def test_grace_lets_a_running_activity_end_and_records_its_result(path: Path) -> None:
    release = asyncio.Event()

    @activity
    async def slow() -> str:
        await release.wait()
        return "ended"

    @workflow
    async def one(ctx: Context) -> str:
        return await ctx.run(slow)

    async def main() -> None:
        engine = Engine(path, [one], checkpoint=True)
        await engine.open()
        await engine.start("one", None, "r")
        await until(lambda: engine.stats().running_activities)
        asyncio.get_running_loop().call_later(0.02, release.set)
        await engine.close(grace_s=20)
        async with served(path, one) as engine:
            assert (await engine.result("r")).unwrap() == "ended"
            assert engine.stats().steps == 0

    run(main)


def test_code_that_does_not_fit_blocks_the_run_and_code_that_fits_lets_it_go_on(path: Path) -> None:
    @workflow(name="waiting")
    async def edited(ctx: Context) -> Any:
        return await ctx.run(double, 5)

    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            await until(lambda: engine.get("r").waits == ("signal go",))
            before = engine.history("r")
        async with served(path, edited) as engine:
            assert engine.get("r").state == "running"  # nobody has looked at it yet
            await engine.signal("r", "go", "kept")
            shown = engine.get("r")
            assert shown.state == "blocked"
            assert shown.error is not None
            assert (shown.error["type"], shown.error["seq"]) == ("Mismatch", 2)
            assert "[4]" in shown.error["recorded"]
            assert "[5]" in shown.error["code"]
            assert list(engine.history("r"))[:-1] == before
            assert engine.stats().runs["blocked"] == 1
            with pytest.raises(errors.RunBlocked):
                shown.unwrap()
            assert (await engine.result("r", timeout_s=0.01)).state == "blocked"
        async with served(path, waiting) as engine:
            assert (await engine.result("r")).unwrap() == [8, "kept"]

    run(main)


def test_a_workflow_that_the_code_has_no_more_blocks_and_comes_back(path: Path) -> None:
    @workflow
    async def other(ctx: Context) -> None: ...

    @workflow
    async def sleeper(ctx: Context) -> str:
        await ctx.sleep(0.05)
        await ctx.run(double, 1)
        return "woke"

    async def main() -> None:
        async with served(path, sleeper) as engine:
            await engine.start("sleeper", None, "r")
        async with served(path, other) as engine:
            await until(lambda: engine.get("r").state == "blocked")
            error = engine.get("r").error
            assert error is not None
            assert "sleeper" in error["message"]
        async with served(path, sleeper) as engine:
            assert (await engine.result("r")).unwrap() == "woke"

    run(main)


def test_a_blocked_run_can_be_cancelled(path: Path) -> None:
    @workflow
    async def outside(ctx: Context) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        async with served(path, outside) as engine:
            await engine.start("outside", None, "r")
            assert engine.get("r").state == "blocked"
            await engine.cancel("r")
            assert (await engine.result("r")).state == "cancelled"

    run(main)


@pytest.mark.parametrize("body", ['{"odd":1}', '{"id":', "[]", '{"id":1,"attempt":1,"result_ref":"gone"}'])
def test_a_damaged_log_blocks_its_run_and_no_other(path: Path, body: str) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            for run_id in ("bad", "good"):
                await engine.start("waiting", None, run_id)
                await until(lambda run_id=run_id: engine.get(run_id).waits == ("signal go",))  # type: ignore[misc] # mypy can't type a default of a lambda
        db = sqlite3.connect(path)
        db.execute("UPDATE log SET body = ? WHERE workflow = 'bad' AND seq = 3", (body,))
        db.commit()
        db.close()
        async with served(path, waiting) as engine:
            await engine.signal("bad", "go", 1)
            assert engine.get("bad").state == "blocked"
            await engine.signal("good", "go", 1)
            assert (await engine.result("good")).state == "completed"

    run(main)


def test_a_newer_schema_is_refused_and_nothing_is_changed(path: Path) -> None:
    async def first() -> None:
        async with served(path, waiting):
            pass

    async def again() -> None:
        for _ in range(2):  # the first one has let go of the lock
            with pytest.raises(errors.SchemaTooNew, match="99"):
                await Engine(path, [waiting]).open()

    run(first)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    before = path.read_bytes()
    run(again)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_nothing_is_changed(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE mine (a)")
    db.close()
    before = path.read_bytes()

    async def main() -> None:
        with pytest.raises(errors.ForeignFile):
            await Engine(path, [waiting]).open()

    run(main)
    assert path.read_bytes() == before


def test_a_replicator_may_have_made_its_tables_before_the_first_migration(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
    db.execute("CREATE TABLE _litestream_lock (id INTEGER)")
    db.close()

    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")

    run(main)


def test_migrations_are_numbered_without_gaps() -> None:
    assert [n for n, _ in sqlite_module.migrations()] == list(range(1, len(sqlite_module.migrations()) + 1))


def test_one_process_serves_a_log(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting):
            with pytest.raises(errors.AlreadyServed):
                await Engine(path, [waiting]).open()
        async with served(path, waiting):
            pass

    run(main)


def test_reading_a_copy_runs_nothing(path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting) as engine:
            await engine.start("waiting", None, "r")
            await until(lambda: engine.get("r").waits == ("signal go",))

    run(main)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    before = copy.read_bytes()
    store = Store(copy)
    row = store.row("r")
    assert row is not None
    assert store.run(row).state == "running"
    store.close()
    assert copy.read_bytes() == before


def test_two_workflows_of_one_name_are_refused() -> None:
    @workflow(name="waiting")
    async def again(ctx: Context) -> None: ...

    with pytest.raises(errors.InvalidDefinition, match="waiting"):
        Engine(Path("/nowhere"), [waiting, again])


def test_what_is_no_workflow_is_refused() -> None:
    @activity
    async def step() -> None: ...

    with pytest.raises(errors.InvalidDefinition, match="activities are not listed"):
        Engine(Path("/nowhere"), [step])  # type: ignore[list-item] # that is the test


def test_no_connection_lets_sqlite_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[apsw.Connection] = []
    connect = apsw.Connection

    def spy(*args: Any, **kwargs: Any) -> apsw.Connection:
        opened.append(connect(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(apsw, "Connection", spy)

    async def main() -> None:
        async with served(path, waiting, checkpoint=False) as engine:
            assert len(opened) == 2
            for db in opened:
                assert db.pragma("wal_autocheckpoint") == 0
                assert db.pragma("journal_mode") == "wal"
            for n in range(300):
                await engine.start("waiting", None, f"r{n}")
        wal = path.with_name(path.name + "-wal")
        assert wal.stat().st_size > 4096 * 1200  # all of it is still there, after the last connection closed

    run(main)


@pytest.mark.parametrize(("name", "number"), [("full", 2), ("normal", 1)])
def test_commits_are_as_synchronous_as_told(path: Path, name: Any, number: int) -> None:
    db = sqlite_module.connect(path, synchronous=name)
    assert db.pragma("synchronous") == number
    db.close()


def test_the_library_alone_checkpoints(path: Path) -> None:
    async def main() -> None:
        async with served(path, waiting, checkpoint=True) as engine:
            for n in range(600):
                await engine.start("waiting", None, f"r{n}")
            wal = path.with_name(path.name + "-wal")
            assert wal.stat().st_size < 4096 * 2500

    run(main)


def test_a_full_disk_fails_the_call_loses_nothing_and_is_over_when_there_is_room(path: Path) -> None:
    calls: list[int] = []

    @activity
    async def big(n: int) -> str:
        calls.append(n)
        return "x" * 900

    @workflow
    async def hungry(ctx: Context) -> int:
        for n in range(200):
            await ctx.run(big, n)
        return 200

    async def main() -> None:
        async with served(path, hungry) as engine:
            writer = engine._executive.writer._db
            assert writer is not None
            writer.execute("PRAGMA max_page_count=40")
            await engine.start("hungry", None, "r")
            await until(lambda: engine.stats().failed_commits)
            with pytest.raises(errors.NotRecorded, match="full"):
                for n in range(1000):
                    await engine.start("hungry", None, f"more{n}")
            assert engine.get("r").state == "running"
            writer.execute("PRAGMA max_page_count=1000000")
            assert (await engine.result("r")).unwrap() == 200
        assert set(range(200)) <= set(calls)

    run(main)
