"""Which runs are removed after their end, and how: a few in one transaction.

What is removed is gone: its log, its payloads that nobody else names, its id, which may then be used again. Its pages
go back to the file, which does not shrink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import apsw

from node.workflow.errors import InvalidDefinition
from node.workflow.values.dataclass import dataclass
from node.workflow.values.run import CLOSED, State

SCANNED_AT_ONCE: Final = 500  # runs looked at in one transaction
EVENTS_AT_ONCE: Final = 1_000  # removed in one transaction; a run goes whole


@dataclass(frozen=True, slots=True)
class Keep:
    """How many seconds runs are kept after they have ended (None: for ever): those of one workflow, or in one state,
    or both, or all. The rule that says most applies; the workflow says more than the state. Raises InvalidDefinition.
    """

    after_s: float | None
    workflow: str | None = None
    state: State | None = None

    def __post_init__(self) -> None:
        if self.after_s is not None and not self.after_s >= 0:
            raise InvalidDefinition(f"runs are kept for {self.after_s} s: at least 0, or None for ever")
        if self.state is not None and self.state not in CLOSED:
            raise InvalidDefinition(f"only runs that have ended are removed: one of {', '.join(sorted(CLOSED))}")


def kept_ms(rules: Sequence[Keep], workflow: str, state: str) -> int | None:
    """How long a run is kept after its end in milliseconds; None: for ever."""
    fitting = [r for r in rules if r.workflow in (None, workflow) and r.state in (None, state)]
    if not fitting:
        return None
    rule = max(fitting, key=lambda r: (r.workflow is not None, r.state is not None))
    return None if rule.after_s is None else round(1000 * rule.after_s)


@dataclass(frozen=True, slots=True)
class Swept:
    """What one transaction removed, by state, and where the next one begins (None: all has been looked at)."""

    removed: Counter[State]
    after: tuple[int, str] | None


@dataclass(frozen=True, slots=True)
class Sweep:
    """One transaction's worth: runs that ended at `after` or later are looked at. `spared` stay whatever the rules say:
    their end is not confirmed yet. Runs admitted after `admitted_before` count for a rate limit.
    """

    rules: tuple[Keep, ...]
    now_ms: int
    admitted_before: int
    after: tuple[int, str]
    spared: frozenset[str]

    def __call__(self, db: apsw.Connection) -> Swept:
        removed: Counter[State] = Counter()
        events = 0
        rows: list[Any] = db.execute(_CLOSED, (*self.after, self.now_ms, SCANNED_AT_ONCE)).fetchall()
        for run_id, name, state, closed_at, last_seq, admitted_at, held in rows:
            after = (closed_at, run_id)
            kept = kept_ms(self.rules, name, state)
            if kept is None or closed_at + kept > self.now_ms or held or run_id in self.spared:
                continue
            if admitted_at is not None and admitted_at > self.admitted_before:
                continue
            remove(db, run_id)
            removed[state] += 1
            events += last_seq
            if events >= EVENTS_AT_ONCE:
                return Swept(removed, after)
        return Swept(removed, after if len(rows) == SCANNED_AT_ONCE else None)


# A child stays while its parent may still want to hear of it, and a run stays while what it says is on its way.
_CLOSED: Final = """
    SELECT id, name, state, closed_at, last_seq, admitted_at,
           EXISTS (SELECT 1 FROM workflows p WHERE p.id = w.parent AND p.closed_at IS NULL)
           OR EXISTS (SELECT 1 FROM letters WHERE sender = w.id)
    FROM workflows w WHERE closed_at IS NOT NULL AND (closed_at, id) > (?, ?) AND closed_at <= ?
    ORDER BY closed_at, id LIMIT ?
"""
_NAMED: Final = """
    SELECT field.atom FROM log, json_each(log.body) AS field
    WHERE workflow = ? AND body LIKE '%\\_ref":"%' ESCAPE '\\' AND field.key LIKE '%\\_ref' ESCAPE '\\'
"""


def remove(db: apsw.Connection, run_id: str) -> None:
    """Remove a run that has ended, in the caller's transaction."""
    named: Counter[Any] = Counter(hashed for (hashed,) in db.execute(_NAMED, (run_id,)).fetchall())
    for table in ("log", "timers", "signals", "heartbeats"):
        db.execute(f"DELETE FROM {table} WHERE workflow = ?", (run_id,))  # noqa: S608 - constants
    db.execute("DELETE FROM workflows WHERE id = ?", (run_id,))
    for hashed, times in named.items():
        db.execute("UPDATE payloads SET uses = uses - ? WHERE hash = ?", (times, hashed))
        db.execute("DELETE FROM payloads WHERE hash = ? AND uses <= 0", (hashed,))
