"""The one thread that writes the log: drain the queue, one transaction, commit, then acknowledge all."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import field, fields, replace
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from node.workflow.core.letters import Letter, LetterKey, LetterRow
from node.workflow.log.archive import archive
from node.workflow.log.codec import Codec, seal, seal_body, seal_payload
from node.workflow.log.sqlite import Synchronous, connect, migrate
from node.workflow.values.dataclass import dataclass
from node.workflow.values.run import RunFacts, RunRow

MAX_BATCH: Final = 1_000

LogRow: TypeAlias = tuple[str, int, int, str, str]  # run, seq, at, kind, body


@dataclass(frozen=True, slots=True)
class Append:
    """What one run adds to the file, all of it or nothing. `run` is its row of current state afterwards.

    `moved` says that more than its progress differs from the row in the file: `state`, `error`, `facts`.
    """

    run: RunRow
    created: bool
    log: Sequence[LogRow] = ()
    payloads: Sequence[tuple[str, str]] = ()
    timers_set: Sequence[tuple[str, int, int]] = ()
    timers_gone: Sequence[tuple[str, int]] = ()
    signals: Sequence[tuple[str, str, int]] = ()
    moved: bool = True
    archived: str | None = None  # the id that the ended run of this id gets, before this one takes its place
    letters: Sequence[Letter] = ()
    letters_gone: Sequence[LetterKey] = ()
    heartbeats_set: Sequence[tuple[str, int, int, int, str]] = ()
    heartbeats_gone: Sequence[tuple[str, int]] = ()
    before: Append | None = None  # the end of the run that this one goes on for, written first
    sealed_letters: Sequence[LetterRow] | None = None
    busier: bool = True  # how many of its activities run differs from the row in the file

    @property
    def chain(self) -> list[Append]:
        """This one and all before it, the first one first."""
        return [self] if self.before is None else [*self.before.chain, self]

    def letter_rows(self) -> Sequence[LetterRow]:
        """The letters as the file keeps them."""
        return [letter.row() for letter in self.letters] if self.sealed_letters is None else self.sealed_letters


@dataclass(slots=True)
class Task:
    """Something else to write, in a transaction together with appends. `result` is what `do` returned."""

    do: Callable[[apsw.Connection], Any]
    done: asyncio.Future[Any]
    result: Any = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of an append: the number of the commit it is in, or why it is not written."""

    append: Append | Task
    commit: int
    batch: int
    error: Exception | None = None


Acknowledge: TypeAlias = Callable[[list[Written]], None]


@dataclass(slots=True)
class _Stop:
    done: threading.Event = field(default_factory=threading.Event)


class Writer:
    """Owns the writing connection. `acknowledge` is called on the writer's thread, once for each commit."""

    def __init__(
        self,
        path: Path,
        synchronous: Synchronous,
        checkpoint: bool,
        acknowledge: Acknowledge,
        codec: Codec | None = None,
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._checkpoint = checkpoint
        self._acknowledge = acknowledge
        self._codec = codec
        self._queue: queue.SimpleQueue[Append | Task | _Stop] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._db: apsw.Connection | None = None
        self.commits = 0  # how many there were; a commit's number is this count after it

    def open(self) -> None:
        """Open the file, migrate it, start the thread. Raises SchemaTooNew, ForeignFile, or apsw.Error."""
        db = connect(self._path, synchronous=self._synchronous, checkpoint=self._checkpoint)
        try:
            migrate(db, self._path)
        except BaseException:
            db.close()
            raise
        self._db = db
        self._thread = threading.Thread(target=self._run, args=(db,), name="workflow-log-writer", daemon=True)
        self._thread.start()

    def submit(self, append: Append | Task) -> None:
        """Queue an append or a task; `acknowledge` tells what became of it."""
        self._queue.put(append)

    def close(self) -> None:
        """Write what is queued and close the file. Blocks until that is done."""
        stop = _Stop()
        self._queue.put(stop)
        if self._thread is not None:
            stop.done.wait()
            self._thread.join()

    def _run(self, db: apsw.Connection) -> None:
        stop: _Stop | None = None
        while stop is None:
            batch: list[Append | Task] = []
            item: Append | Task | _Stop = self._queue.get()
            while True:
                if isinstance(item, _Stop):
                    stop = item
                    break
                batch.append(item)
                if len(batch) >= MAX_BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._acknowledge(self._write(db, batch))
        db.close()
        stop.done.set()

    def _write(self, db: apsw.Connection, batch: list[Append | Task]) -> list[Written]:
        try:
            _commit(db, batch, self._codec)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live and the append be answered
            if len(batch) == 1:
                return [Written(batch[0], 0, 1, error)]
            return [written for append in batch for written in self._write(db, [append])]  # one bad append fails alone
        self.commits += 1
        return [Written(append, self.commits, len(batch)) for append in batch]


def _commit(db: apsw.Connection, batch: list[Append | Task], codec: Codec | None) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        appends = [item for item in batch if isinstance(item, Append)]
        longer = any(append.before is not None for append in appends)
        for step in zip_longest(*(append.chain for append in appends)) if longer else (appends,):
            now = [append for append in step if append is not None]
            _statements(db, now if codec is None else [_sealed(codec, append) for append in now])
        for item in batch:
            if isinstance(item, Task):
                item.result = item.do(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _sealed(codec: Codec, append: Append) -> Append:
    """The same with every value of the user's encoded. Raises what the codec raises."""
    payloads = [seal_payload(codec, hashed, text) for hashed, text in append.payloads]
    hashes = {before: after for (before, _), (after, _) in zip(append.payloads, payloads, strict=True)}
    run = append.run
    return replace(
        append,
        run=replace(
            run,
            user_state=seal(codec, run.user_state) if run.user_state else None,
            error=seal(codec, run.error) if run.error else None,
        ),
        log=[(run_id, seq, at, kind, seal_body(codec, body, hashes)) for run_id, seq, at, kind, body in append.log],
        payloads=payloads,
        heartbeats_set=[(*beat[:4], seal(codec, beat[4])) for beat in append.heartbeats_set],
        sealed_letters=[
            (*letter[:4], seal_body(codec, letter[4], {}), letter[5] and seal(codec, letter[5]))
            for letter in append.letter_rows()
        ],
    )


_FACTS: Final = tuple(f.name for f in fields(RunFacts))
_ROW: Final = (
    "id",
    "name",
    "state",
    "input_hash",
    "last_seq",
    "active",
    "waits",
    "user_state",
    "error",
    "created_at",
    "updated_at",
    "closed_at",
)
_PROGRESS: Final = ("last_seq", "waits", "user_state", "updated_at")
_BUSIER: Final = (*_PROGRESS, "active")
_MOVED: Final = (*_BUSIER, "state", "error", "closed_at")


def _assignments(names: Sequence[str]) -> str:
    return ", ".join(f"{name} = ?" for name in names)


# So many statements, so that the usual one touches no index that a run's progress does not change.
_INSERT: Final = f"INSERT INTO workflows ({', '.join(_ROW + _FACTS)}) VALUES ({', '.join('?' * len(_ROW + _FACTS))})"  # noqa: S608 - constants
_UPDATE_PROGRESS: Final = f"UPDATE workflows SET {_assignments(_PROGRESS)} WHERE id = ?"  # noqa: S608 - constants
_UPDATE_BUSIER: Final = f"UPDATE workflows SET {_assignments(_BUSIER)} WHERE id = ?"  # noqa: S608 - constants
_UPDATE_ALL: Final = f"UPDATE workflows SET {_assignments(_MOVED + _FACTS)} WHERE id = ?"  # noqa: S608 - constants
_row_values: Final = attrgetter(*_ROW)
_progress_values: Final = attrgetter(*_PROGRESS, "id")
_busier_values: Final = attrgetter(*_BUSIER, "id")
_moved_values: Final = attrgetter(*_MOVED)
_fact_values: Final = attrgetter(*_FACTS)


def _statements(db: apsw.Connection, batch: list[Append]) -> None:
    for append in batch:
        if append.archived is not None:
            archive(db, append.run.id, append.archived)
    runs = [a.run for a in batch if a.created]
    moved = [a.run for a in batch if not a.created and a.moved]
    busier = [a.run for a in batch if not a.created and not a.moved and a.busier]
    going = [a.run for a in batch if not a.created and not a.moved and not a.busier]
    for sql, rows in (
        (_INSERT, [(*_row_values(r), *_fact_values(r.facts)) for r in runs]),
        (_UPDATE_ALL, [(*_moved_values(r), *_fact_values(r.facts), r.id) for r in moved]),
        (_UPDATE_BUSIER, [_busier_values(r) for r in busier]),
        (_UPDATE_PROGRESS, [_progress_values(r) for r in going]),
        ("INSERT INTO log VALUES (?, ?, ?, ?, ?)", [r for a in batch for r in a.log]),
        (_PAYLOAD, [r for a in batch for r in a.payloads]),
        ("DELETE FROM timers WHERE workflow = ? AND id = ?", [r for a in batch for r in a.timers_gone]),
        ("INSERT OR REPLACE INTO timers VALUES (?, ?, ?)", [r for a in batch for r in a.timers_set]),
        ("INSERT INTO signals VALUES (?, ?, ?)", [r for a in batch for r in a.signals]),
        ("DELETE FROM heartbeats WHERE workflow = ? AND id = ?", [r for a in batch for r in a.heartbeats_gone]),
        ("INSERT OR REPLACE INTO heartbeats VALUES (?, ?, ?, ?, ?)", [r for a in batch for r in a.heartbeats_set]),
        (_LETTER_GONE, [r for a in batch for r in a.letters_gone]),
        ("INSERT INTO letters VALUES (?, ?, ?, ?, ?, ?)", [r for a in batch for r in a.letter_rows()]),
    ):
        if rows:
            db.executemany(sql, rows)


_LETTER_GONE: Final = "DELETE FROM letters WHERE sender = ? AND step = ? AND target = ?"
_PAYLOAD: Final = (
    "INSERT INTO payloads (hash, body, uses) VALUES (?, ?, 1) ON CONFLICT (hash) DO UPDATE SET uses = uses + 1"
)
