"""Replays the runs of a log file against code, on a copy: for a command, and a test in CI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw

from node.workflow.core.definition import Workflow
from node.workflow.core.rehearsal import Replayed, replay
from node.workflow.errors import LogDamaged, UnknownWorkflow
from node.workflow.log.codec import Codec
from node.workflow.log.sqlite import connect, migrate
from node.workflow.log.store import Store


def replay_file(
    path: Path,
    definitions: Iterable[Workflow],
    run_ids: Sequence[str] = (),
    *,
    closed: bool = False,
    codec: Codec | None = None,
) -> Iterator[Replayed]:
    """Replay the runs of a log: those named, else every open one, and with `closed` those that have ended too.

    The file is copied first, and an older schema is migrated in the copy only. Raises SchemaTooNew, ForeignFile, or
    apsw.Error.
    """
    by_name = {definition.name: definition for definition in definitions}
    with TemporaryDirectory(prefix="workflow-replay-") as folder:
        copy = Path(folder) / "copy.db"
        _copy(path, copy)
        store = Store(copy, checkpoint=True, codec=codec)
        try:
            for run_id, name in _wanted(store, run_ids, closed):
                yield _replay_run(store, by_name, run_id, name)
        finally:
            store.close()


def _copy(path: Path, copy: Path) -> None:
    source = apsw.Connection(
        f"{path.resolve().as_uri()}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    target = connect(copy, checkpoint=True)
    try:
        with target.backup("main", source, "main") as backup:
            backup.step()
        migrate(target, path)
    finally:
        source.close()
        target.close()


def _wanted(store: Store, run_ids: Sequence[str], closed: bool) -> list[tuple[str, str]]:
    if run_ids:
        rows = [(run_id, store.row(run_id)) for run_id in run_ids]
        return [(run_id, "" if row is None else row.name) for run_id, row in rows]
    where = "" if closed else " WHERE closed_at IS NULL"
    return store.rows(f"SELECT id, name FROM workflows{where} ORDER BY created_at, id")  # noqa: S608 - constants


def _replay_run(store: Store, by_name: Mapping[str, Workflow], run_id: str, name: str) -> Replayed:
    definition = by_name.get(name)
    if definition is None:
        problem = str(UnknownWorkflow(name, tuple(by_name))) if name else f"no run has the id {run_id!r}"
        return Replayed(run_id, name, 0, problem)
    try:
        history = store.events(run_id)
    except LogDamaged as error:
        return Replayed(run_id, name, 0, str(error))
    return replay(history, definition, run_id)
