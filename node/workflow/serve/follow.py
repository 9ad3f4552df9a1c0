"""A run's log as it grows, for one who follows it, and then the logs of those that go on for it under its id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from node.workflow.errors import NoSuchRun
from node.workflow.log.store import without_end
from node.workflow.serve.executive import Executive
from node.workflow.values.events import Event
from node.workflow.values.run import CLOSED, RunRow

EVENTS_AT_ONCE: Final = 200  # in memory of one who follows a run


async def follow(
    executive: Executive, run_id: str, after: int, number: int | None = None
) -> AsyncIterator[Sequence[Event]]:
    """The log of incarnation `number` (None: of the newest) behind event `after`, then those of the later ones, whole.

    Logs that are no longer kept are left out. It ends with the run, and when another run was started with its id.
    Raises NoSuchRun, NotOpen.
    """
    followed: RunRow | None = None
    while True:
        row = executive.store.incarnation(run_id, number)
        if row is None:
            raise NoSuchRun(run_id)
        if followed is not None and _is_another(row, followed):
            return
        if number not in (None, row.incarnation) or row.last_seq < after:
            after = 0  # the log asked for is gone, or the file is an older one than the reader has seen
        followed, number = row, row.incarnation
        events = executive.store.events(row.id, after, EVENTS_AT_ONCE)
        now = executive.store.row(row.id)
        if now is None or now.created_at != row.created_at or now.incarnation != number:
            continue  # it went on as new between the two: these events may be of either
        told = now.state in CLOSED and (row.id != run_id or executive.ends.is_told(run_id))
        if now.state in CLOSED and not told:
            events = without_end(events)
        if events:
            after = events[-1].seq
            yield events
        elif row.id != run_id:
            number, after = number + 1, 0
        elif told:
            return
        else:
            await executive.watch.wait(run_id)


def _is_another(row: RunRow, followed: RunRow) -> bool:
    """Whether a run that was started with the id of the one that is followed has taken its place."""
    if row.incarnation == followed.incarnation:
        return row.created_at != followed.created_at
    return row.incarnation < followed.incarnation
