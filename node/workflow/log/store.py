"""What is read from the log's file. Reads only; the writer has a connection of its own."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from node.workflow.core.letters import Letter, read
from node.workflow.core.queue import PLACES_A_POINT, Queue, Usage, Waiting
from node.workflow.errors import InvalidInput, LogDamaged, Undecodable
from node.workflow.log.codec import MARK, Codec, Unreadable, is_sealed, readable, unseal, unseal_facts
from node.workflow.log.search import Search
from node.workflow.log.sqlite import connect
from node.workflow.values.events import ENDS, Event, payload_reference, with_payload
from node.workflow.values.payload import encode
from node.workflow.values.run import STATES, Heartbeat, Run, RunFacts, RunRow, State, incarnation

log = logging.getLogger(__name__)

_FACTS = tuple(f.name for f in fields(RunFacts))
_COLUMNS = (
    "id, name, state, input_hash, last_seq, active, waits, user_state, error, created_at, updated_at, "
    + ", ".join(_FACTS)
)

_EARLIER = (
    "WITH RECURSIVE chain(id, before) AS (SELECT id, continued_from FROM workflows WHERE id = ? UNION ALL"
    " SELECT w.id, w.continued_from FROM chain JOIN workflows w ON w.id = before"
    " WHERE CAST(substr(before, instr(before, '~') + 1) AS INTEGER) > ?)"
    " SELECT id, coalesce(CAST(substr(before, instr(before, '~') + 1) AS INTEGER), 0) AS number FROM chain"
    " WHERE number >= ? ORDER BY number LIMIT 1"
)


class Store:
    """A reader of one log."""

    def __init__(self, path: Path, checkpoint: bool = False, codec: Codec | None = None) -> None:
        self._db = connect(path, checkpoint=checkpoint, query_only=True)
        self._codec = codec

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """What a query finds. Every row at once: a statement left half-read would hold the WAL."""
        return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def row(self, run_id: str) -> RunRow | None:
        """The current state of a run."""
        found = self.rows(f"SELECT {_COLUMNS} FROM workflows WHERE id = ?", run_id)  # noqa: S608 - a constant
        return self._row(found[0]) if found else None

    def incarnation(self, run_id: str, number: int | None) -> RunRow | None:
        """Of the runs that went on for each other under this id the first from `number` on that is kept; the newest
        when that is None or none is as new.
        """
        newest = self.row(run_id)
        if newest is None or number is None or newest.incarnation <= number:
            return newest
        found = self.rows(_EARLIER, run_id, number, number)
        return self.row(found[0][0]) if found else newest

    def events(self, run_id: str, after: int = 0, limit: int = -1) -> list[Event]:
        """A run's log in order, payloads put back: what follows event `after`, at most `limit` (-1: all).

        Raises LogDamaged.
        """
        rows = self.rows(
            "SELECT seq, at, kind, body FROM log WHERE workflow = ? AND seq > ? ORDER BY seq LIMIT ?",
            run_id,
            after,
            limit,
        )
        return [self._event(run_id, *row) for row in rows]

    def run(self, row: RunRow) -> Run:
        """A run with its input and result; one that can't be decoded says so in its `error`. Raises LogDamaged."""
        sql = "SELECT seq, at, kind, body FROM log WHERE workflow = ? AND seq IN (1, ?) ORDER BY seq"
        ends = self.rows(sql, row.id, row.last_seq)
        error = readable(self._codec, row.error) if row.error else None
        try:
            first, last = self._event(row.id, *ends[0]), self._event(row.id, *ends[-1])
        except Undecodable as undecodable:
            first, last = (Event(seq, at, kind, {"input": None}) for seq, at, kind, _ in (ends[0], ends[-1]))
            error = json.dumps({"type": "Undecodable", "message": str(undecodable)})
        return Run(
            id=row.id,
            workflow=row.name,
            state=row.state,
            input=first.body["input"],
            result=last.body.get("result") if last.kind in ENDS else None,
            error=json.loads(error) if error else None,
            user_state=json.loads(readable(self._codec, row.user_state)) if row.user_state else None,
            waits=tuple(json.loads(row.waits)),
            created_at=row.created_at / 1000,
            updated_at=row.updated_at / 1000,
            closed_at=None if row.closed_at is None else row.closed_at / 1000,
            paused=bool(row.facts.paused),
            parent=row.facts.parent,
            continued_from=row.facts.continued_from,
            continued_to=row.facts.continued_to,
            forked_from=row.facts.forked_from,
            schedule=row.facts.schedule,
            queue=row.facts.queue,
            queue_key=row.facts.queue_key,
            priority=row.facts.priority,
            attributes=json.loads(row.facts.attributes) if row.facts.attributes else {},
        )

    def page(
        self, search: Search, limit: int, cursor: str | None, also: Sequence[str] = ()
    ) -> tuple[list[RunRow], str | None]:
        """Rows, newest first, and the cursor of the next page. Runs in `also` count as being in the state asked for."""
        where, values = search.conditions(also)
        if cursor is not None:
            where.append("(created_at, id) < (?, ?)")
            values.extend(_parse_cursor(cursor))
        wanted = " AND ".join(where) or "TRUE"
        sql = f"SELECT {_COLUMNS} FROM workflows WHERE {wanted} ORDER BY created_at DESC, id DESC LIMIT ?"  # noqa: S608 - constants
        rows = [self._row(r) for r in self.rows(sql, *values, limit + 1)]
        more = len(rows) > limit
        rows = rows[:limit]
        return rows, f"{rows[-1].created_at}.{rows[-1].id}" if more else None

    def counts(self) -> dict[State, int]:
        """How many runs are in each state."""
        found = dict(self.rows("SELECT state, count(*) FROM workflows GROUP BY state"))
        return {state: found.get(state, 0) for state in STATES}

    def active(self) -> list[str]:
        """Runs with an activity to run now, and runs that were blocked."""
        active = "SELECT id FROM workflows WHERE active > 0"
        blocked = "SELECT id FROM workflows WHERE state = 'blocked'"
        return [r[0] for r in self.rows(f"{active} UNION {blocked}")]

    def due_timers(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Run and step of the timers that are due, the oldest first; those of blocked runs wait."""
        return self.rows(
            "SELECT t.workflow, t.id FROM timers t WHERE t.due <= ?"
            " AND (SELECT state FROM workflows w WHERE w.id = t.workflow) = 'running' ORDER BY t.due LIMIT ?",
            now_ms,
            limit,
        )

    def first_due_ms(self) -> int | None:
        """When the first timer of all is due; those of runs that do not go on count as well."""
        found: int | None = self.rows("SELECT min(due) FROM timers")[0][0]
        return found

    def next_due_ms(self, after_ms: int) -> int | None:
        """When the first timer after `after_ms` is due."""
        found: int | None = self.rows("SELECT min(due) FROM timers WHERE due > ?", after_ms)[0][0]
        return found

    def timers(self, run_id: str) -> dict[int, int]:
        """The steps of a run that have a timer, and when each is due."""
        return dict(self.rows("SELECT id, due FROM timers WHERE workflow = ?", run_id))

    def archive_id(self, run_id: str, continued_from: str | None) -> str:
        """A free id for a run that goes on as new, for what it was until now."""
        number = incarnation(continued_from) + 1
        while self.row(f"{run_id}~{number}") is not None:
            number += 1
        return f"{run_id}~{number}"

    def code(self) -> str | None:
        """The fingerprint of the code that the open runs were last replayed with."""
        found = self.rows("SELECT digest FROM code")
        return found[0][0] if found else None

    def open_runs(self) -> list[str]:
        """Every run that has not ended, the newest first."""
        return [r[0] for r in self.rows("SELECT id FROM workflows WHERE closed_at IS NULL ORDER BY created_at DESC")]

    def letters(self) -> list[Letter]:
        """What runs have for each other and is not recorded at its target yet, in order for each sender."""
        found: list[Letter] = []
        for *where, body, payload in self.rows("SELECT * FROM letters ORDER BY sender, step"):
            try:
                facts = unseal_facts(self._codec, json.loads(body))
                found.append(read((*where, encode(facts), payload and unseal(self._codec, payload))))
            except Unreadable as error:
                log.error("what run %s has for run %s waits: it can't be decoded: %s", where[0], where[2], error)
        return found

    def is_coming(self, run_id: str) -> bool:
        """Whether a letter that starts this run is not delivered yet."""
        return bool(self.rows("SELECT 1 FROM letters WHERE target = ? AND kind = 'started'", run_id))

    def open_children(self, parent: str) -> list[tuple[str, str]]:
        """The children of a run that have not ended, and what becomes of each when their parent closes."""
        return self.rows(
            "SELECT id, parent_policy FROM workflows WHERE parent = ? AND closed_at IS NULL ORDER BY id", parent
        )

    def parents(self) -> list[tuple[str, bool]]:
        """The runs that have children which have not ended, and whether they have ended themselves."""
        return self.rows(
            "SELECT c.parent, max(p.closed_at IS NOT NULL) FROM workflows c JOIN workflows p ON p.id = c.parent"
            " WHERE c.parent IS NOT NULL AND c.closed_at IS NULL GROUP BY 1"
        )

    def heartbeats(self, run_id: str) -> dict[int, Heartbeat]:
        """The newest heartbeat of each step of a run that has one."""
        rows = self.rows("SELECT id, attempt, at, details FROM heartbeats WHERE workflow = ?", run_id)
        return {step: Heartbeat(attempt, at, readable(self._codec, text)) for step, attempt, at, text in rows}

    def signal_seq(self, run_id: str, signal_id: str) -> int | None:
        """The event of a signal that was sent with this id."""
        found = self.rows("SELECT seq FROM signals WHERE workflow = ? AND id = ?", run_id, signal_id)
        return found[0][0] if found else None

    def queues(self) -> list[Queue]:
        """Every queue there is."""
        rows = self.rows("SELECT name, concurrency, per_key, rate_limit, rate_period, paused FROM queues ORDER BY name")
        return [
            Queue(name, concurrency, per_key, limit, None if period is None else period / 1000, bool(paused))
            for name, concurrency, per_key, limit, period, paused in rows
        ]

    def arrivals(self) -> dict[str, int]:
        """The last place in each queue that anybody had."""
        sql = "SELECT queue, max(place - ? * priority) FROM workflows WHERE queue IS NOT NULL GROUP BY queue"
        return dict(self.rows(sql, PLACES_A_POINT))

    def has_open_children(self, run_id: str) -> bool:
        """Whether a child of this run has not ended."""
        return bool(self.rows("SELECT 1 FROM workflows WHERE parent = ? AND closed_at IS NULL LIMIT 1", run_id))

    def waiting(self, queue: str, full: Sequence[str], after: tuple[int, str], limit: int) -> list[Waiting]:
        """Who stands in a queue, in order, behind place and id `after`; runs of the keys in `full` are left out."""
        sql = (
            "SELECT id, queue_key, place FROM workflows WHERE queue = ? AND state = 'queued' AND paused = 0"
            " AND (place, id) > (?, ?) AND (queue_key IS NULL OR queue_key NOT IN (SELECT value FROM json_each(?)))"
            " ORDER BY place, id LIMIT ?"
        )
        return [Waiting(*row) for row in self.rows(sql, queue, *after, json.dumps(full), limit)]

    def usage(self, queue: Queue, now_ms: int) -> Usage:
        """What has left a queue and counts for its limits."""
        running = 0
        by_key: dict[str, int] = {}
        if queue.concurrency is not None or queue.per_key is not None:
            sql = (
                "SELECT queue_key, count(*) FROM workflows WHERE queue = ? AND state IN ('running', 'blocked')"
                " AND admitted_at IS NOT NULL GROUP BY queue_key"
            )
            for key, count in self.rows(sql, queue.name):
                running += count
                if key is not None:
                    by_key[key] = count
        begun: tuple[int, ...] = ()
        if queue.rate_period_ms is not None:
            sql = (
                "SELECT admitted_at FROM workflows WHERE queue = ? AND admitted_at > ? AND admitted_at <= ?"
                " ORDER BY admitted_at DESC LIMIT ?"
            )
            rows = self.rows(sql, queue.name, now_ms - queue.rate_period_ms, now_ms, queue.rate_limit)
            begun = tuple(row[0] for row in rows)
        return Usage(running, by_key, begun)

    def depths(self) -> dict[str, int]:
        """How many runs wait in each queue."""
        return dict(
            self.rows(
                "SELECT queue, count(*) FROM workflows WHERE queue IS NOT NULL AND state = 'queued' GROUP BY queue"
            )
        )

    def _row(self, columns: Sequence[Any]) -> RunRow:
        values: list[Any] = [*columns[:11], RunFacts(*columns[11:])]
        for index in (7, 8):  # user_state and error; what can't be decoded stays as it is
            if values[index] is not None and is_sealed(values[index]):
                with contextlib.suppress(Unreadable):
                    values[index] = unseal(self._codec, values[index])
        return RunRow(*values)

    def _event(self, run_id: str, seq: int, at: int, kind: str, body: str) -> Event:
        try:
            facts = dict(json.loads(body))
            sealed = MARK in body
            reference = payload_reference(kind, facts)
            if reference is not None:
                text = self.rows("SELECT body FROM payloads WHERE hash = ?", reference)[0][0]
                facts = with_payload(kind, facts, json.loads(text))
                sealed = sealed or is_sealed(text)
            if sealed:
                facts = unseal_facts(self._codec, facts)
        except (ValueError, TypeError, LookupError) as error:
            raise LogDamaged(run_id, seq, repr(error)) from None
        except Unreadable as error:
            raise Undecodable(run_id, seq, str(error)) from None
        return Event(seq, at, kind, facts)


def without_end(events: Iterable[Event]) -> list[Event]:
    """A history up to, not including, its end: as it is shown until the end is confirmed."""
    return [e for e in events if e.kind not in ENDS]


def _parse_cursor(cursor: str) -> tuple[int, str]:
    created, dot, run_id = cursor.partition(".")
    if not dot or not created.isdecimal() or len(created) > 18:
        raise InvalidInput("cursor", "not one that a list gave out")
    return int(created), run_id
