"""An older file is migrated when it is served, and only then; a newer one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from node.workflow import Context, Engine, activity, errors, workflow
from node.workflow.log.sqlite import APPLICATION_ID, connect, migrations
from node.workflow.values.payload import digest, encode, short_digest
from tests.integration.workflow.served import run, served

LARGE = encode("x" * 2000)


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow
async def waiting(ctx: Context, n: int) -> int:
    doubled = await ctx.run(double, n)
    await ctx.wait_signal("go")
    return doubled


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as the first schema wrote it: one run that waits, one that has ended with a large result."""
    path = tmp_path / "workflow.db"
    db = connect(path)
    with db:
        db.execute(migrations()[0][1])
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("PRAGMA user_version=1")
        no_wait = short_digest("None")
        log = [
            ("w", 1, "started", {"name": "waiting", "seed": "s", "input": 21}),
            ("w", 2, "activity_scheduled", {"id": 1, "name": "double", "hash": short_digest("[21]"), "args": [21]}),
            ("w", 3, "activity_completed", {"id": 1, "attempt": 1, "result": 42}),
            ("w", 4, "signal_awaited", {"id": 2, "name": "go", "hash": no_wait}),
            ("e", 1, "started", {"name": "echo", "seed": "s", "input_ref": digest(LARGE)}),
            ("e", 2, "completed", {"result_ref": digest(LARGE), "hash": short_digest(LARGE)}),
        ]
        db.executemany("INSERT INTO log VALUES (?, ?, 1000, ?, ?)", [(*r[:3], json.dumps(r[3])) for r in log])
        db.execute("INSERT INTO payloads VALUES (?, ?)", (digest(LARGE), LARGE))
        row = "INSERT INTO workflows VALUES (?, ?, ?, ?, ?, 0, ?, NULL, NULL, 1000, 2000)"
        db.execute(row, ("w", "waiting", "running", digest("21"), 4, '["signal go"]'))
        db.execute(row, ("e", "echo", "completed", digest(LARGE), 2, "[]"))
    db.close()
    return path


def schema(path: Path) -> int:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found: int = db.pragma("user_version")
    db.close()
    return found


def test_an_older_file_is_migrated_and_its_runs_go_on(old: Path) -> None:
    async def main() -> None:
        async with served(old, waiting) as engine:
            ended = engine.get("e")
            assert (ended.state, ended.result, ended.closed_at) == ("completed", "x" * 2000, 2.0)
            await engine.signal("w", "go")
            assert (await engine.result("w")).unwrap() == 42
        assert schema(old) == len(migrations())
        db = connect(old, query_only=True)
        assert db.execute("SELECT uses FROM payloads").fetchall() == [(2,)]
        db.close()

    run(main)


def test_a_process_that_does_not_serve_leaves_an_older_file_as_it_is(old: Path) -> None:
    async def main() -> None:
        async with served(old, waiting):
            pass

    lock = old.with_name("workflow.db.lock").open("wb")
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(errors.AlreadyServed):
        run(main)
    assert schema(old) == 1
    lock.close()


def test_a_newer_file_is_refused_and_left_as_it_is(old: Path) -> None:
    newer = len(migrations()) + 1
    db = connect(old)
    db.execute(f"PRAGMA user_version={newer}")
    db.close()

    async def main() -> None:
        with pytest.raises(errors.SchemaTooNew):
            await Engine(old, [waiting]).open()

    run(main)
    assert schema(old) == newer


def test_a_migration_that_dies_in_the_middle_is_as_if_it_had_not_begun(old: Path) -> None:
    db = connect(old)
    sql = migrations()[1][1]
    with pytest.raises(apsw.SQLError), db:
        db.execute(sql + "; SELECT no_such_function()")
    db.close()
    assert schema(old) == 1

    async def main() -> None:
        async with served(old, waiting) as engine:
            assert {r.id for r in engine.list().runs} == {"w", "e"}

    run(main)
