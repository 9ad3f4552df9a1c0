"""Removes runs that ended long enough ago, a few at a time between other writes.

What is removed is gone: its log, its payloads that nobody else names, its id, which may then be used again. Its pages
go back to the file, which does not shrink.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import apsw

from node.workflow.errors import InvalidDefinition, NotOpen, WorkflowError
from node.workflow.run import CLOSED, State

if TYPE_CHECKING:
    from node.workflow.executive import Executive

log = logging.getLogger(__name__)

SCANNED_AT_ONCE: Final = 500  # runs looked at in one transaction
EVENTS_AT_ONCE: Final = 1_000  # removed in one transaction; a run goes whole
BETWEEN_S: Final = 0.02
LONGEST_PERIOD_S: Final = 3_600.0
TOLERATED_JUMP_MS: Final = 60_000


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


class Retention:
    """Sweeps now and then, by the rules."""

    def __init__(self, executive: Executive, rules: Sequence[Keep]) -> None:
        self._executive = executive
        self._rules = tuple(rules)
        shortest = min((rule.after_s for rule in rules if rule.after_s is not None), default=0.0)
        self._period_ms = round(1000 * min(max(shortest / 10, 1.0), LONGEST_PERIOD_S))
        self._next_ms = 0
        self._ages: tuple[int, float] | None = None  # the clock and the time that never jumps, at the last sweep
        self._sweeping: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin, where there are rules."""
        if self._rules:
            self._is_plausible(self._executive.now_ms())
            self._executive.clocks.append(self.ring)
            self._executive.look_at(self._executive.now_ms())

    async def close(self) -> None:
        """Stop."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def ring(self, now_ms: int) -> int:
        """Sweep, when it is time. Returns when the next time is."""
        if now_ms >= self._next_ms or self._next_ms > now_ms + self._period_ms:
            self._next_ms = now_ms + self._period_ms
            if self._is_plausible(now_ms) and self._sweeping is None:
                self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="workflow-retention")
        return self._next_ms

    def _is_plausible(self, now_ms: int) -> bool:
        """Whether the clock went on as time did: right after it jumped, nothing is taken for old."""
        monotonic_s = asyncio.get_running_loop().time()
        before, self._ages = self._ages, (now_ms, monotonic_s)
        if before is None:
            return True
        return abs((now_ms - before[0]) - 1000 * (monotonic_s - before[1])) <= TOLERATED_JUMP_MS

    async def _sweep(self) -> None:
        try:
            await self.sweep()
        except NotOpen:
            return
        except WorkflowError as error:
            log.error("runs that are past their retention stay for now: %s", error)
        finally:
            self._sweeping = None

    async def sweep(self) -> int:
        """Look at every run that has ended once, and remove what the rules say. Returns how many went.

        Raises NotRecorded or NotOpen.
        """
        count, after = 0, (0, "")
        while True:
            executive = self._executive
            now_ms = executive.now_ms()
            longest = max((queue.rate_period_ms or 0 for queue in executive.admission.queues), default=0)
            spared = frozenset(executive.ends.hidden)
            swept = await executive.write(Sweep(self._rules, now_ms, now_ms - longest, after, spared), "retention")
            for state, number in swept.removed.items():
                executive.removed(state, number)
            count += swept.removed.total()
            if swept.after is None:
                return count
            after = swept.after
            await asyncio.sleep(BETWEEN_S)
