"""Schedules in the log's file: what is read of them, and what is written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import apsw

from node.workflow.core.schedule import Schedule
from node.workflow.errors import InvalidInput
from node.workflow.log.codec import Codec, Unreadable, seal, unseal
from node.workflow.log.store import Store
from node.workflow.values.dataclass import dataclass
from node.workflow.values.payload import encode

log = logging.getLogger(__name__)

KEPT_FIRINGS: Final = 1_000  # of each schedule

Outcome: TypeAlias = Literal["started", "skipped", "buffered"]


@dataclass(frozen=True, slots=True)
class Firing:
    """What became of one time. `at` is unix seconds; `outcome` is started, skipped or buffered."""

    at: float
    outcome: Outcome
    run_id: str | None


@dataclass(slots=True)
class Row:
    """A schedule and where it stands; the columns of the same names. Times are unix milliseconds."""

    schedule: Schedule
    paused: bool
    looked_at: int
    next_at: int | None
    note: str | None
    forgotten: int


def rows(store: Store, codec: Codec | None) -> list[Row]:
    """Every schedule that can be read."""
    found: list[Row] = []
    sql = "SELECT id, input, spec, paused, looked_at, next_at, note, forgotten FROM schedules"
    for name, input_text, spec, paused, *where in store.rows(sql):
        try:
            schedule = Schedule(name, input=json.loads(unseal(codec, input_text)), **json.loads(spec))
        except (
            InvalidInput,
            Unreadable,
            TypeError,
            ValueError,
        ) as error:  # a time zone that this machine does not know, say
            log.error("schedule %s can't be read and stands still: %s", name, error)
            continue
        found.append(Row(schedule, bool(paused), *where))
    return found


def newest(store: Store, name: str, limit: int) -> tuple[Firing, ...]:
    """The newest firings of a schedule, the newest first."""
    sql = "SELECT at / 1000.0, outcome, workflow FROM firings WHERE schedule = ? ORDER BY at DESC LIMIT ?"
    return tuple(Firing(*row) for row in store.rows(sql, name, limit))


def buffered(store: Store, name: str) -> Sequence[int]:
    """The times that wait for a run to end, in order."""
    sql = "SELECT at FROM firings WHERE schedule = ? AND outcome = 'buffered' ORDER BY at"
    return [row[0] for row in store.rows(sql, name)]


def fired(store: Store, name: str, after_ms: int) -> frozenset[int]:
    """The times after a moment that something became of."""
    return frozenset(r[0] for r in store.rows("SELECT at FROM firings WHERE schedule = ? AND at > ?", name, after_ms))


def open_runs(store: Store, name: str) -> list[str]:
    """The runs of a schedule that have not ended."""
    rows = store.rows("SELECT id FROM workflows WHERE schedule = ? AND closed_at IS NULL ORDER BY created_at", name)
    return [row[0] for row in rows]


Do: TypeAlias = Callable[[apsw.Connection], None]


def put(row: Row, now_ms: int, codec: Codec | None) -> Do:
    """Write a schedule whole."""
    schedule = row.schedule
    input_text = seal(codec, encode(schedule.input))
    values = (
        schedule.id, schedule.spec(), input_text, row.paused, row.looked_at, row.next_at, row.note, row.forgotten,
        now_ms, now_ms,
    )  # fmt: skip  # the columns in order

    def do(db: apsw.Connection) -> None:
        db.execute(
            "INSERT INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " spec = excluded.spec, input = excluded.input, paused = excluded.paused, looked_at = excluded.looked_at,"
            " next_at = excluded.next_at, note = excluded.note, updated_at = excluded.updated_at",
            values,
        )

    return do


def remove(name: str) -> Do:
    """Remove a schedule and its firings."""

    def do(db: apsw.Connection) -> None:
        db.execute("DELETE FROM firings WHERE schedule = ?", (name,))
        db.execute("DELETE FROM schedules WHERE id = ?", (name,))

    return do


def fire(name: str, at_ms: int, outcome: Outcome, run_id: str | None, replaces: bool) -> Do:
    """Write down what became of a time. `replaces`: of those that are buffered, only this one stays so."""

    def do(db: apsw.Connection) -> None:
        if replaces:
            db.execute("UPDATE firings SET outcome = 'skipped' WHERE schedule = ? AND outcome = 'buffered'", (name,))
        db.execute("INSERT OR REPLACE INTO firings VALUES (?, ?, ?, ?)", (name, at_ms, outcome, run_id))

    return do


def decide(row: Row, now_ms: int) -> Callable[[apsw.Connection], int]:
    """Write down up to where every time is decided, and forget the oldest firings. Returns the newest that is gone."""
    name = row.schedule.id

    def do(db: apsw.Connection) -> int:
        gone: list[Any] = db.execute(
            "DELETE FROM firings WHERE schedule = ? AND outcome <> 'buffered' AND at <= (SELECT at FROM firings"
            " WHERE schedule = ? AND outcome <> 'buffered' ORDER BY at DESC LIMIT 1 OFFSET ?) RETURNING at",
            (name, name, KEPT_FIRINGS),
        ).fetchall()
        forgotten: int = max([row.forgotten, *(at for (at,) in gone)])
        db.execute(
            "UPDATE schedules SET looked_at = ?, next_at = ?, note = ?, forgotten = ?, updated_at = ? WHERE id = ?",
            (row.looked_at, row.next_at, row.note, forgotten, now_ms, name),
        )
        return forgotten

    return do
