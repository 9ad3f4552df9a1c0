"""Starts runs at the times of schedules: the shell around `core/schedule.py`.

A time is decided, then acted on, then written down. The run of a time has an id of its own, so a time that is acted on
again, because the process died before it was written down, finds its run there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import apsw

from node.workflow.core.schedule import Due, Schedule, act, due
from node.workflow.errors import InvalidInput, NoSuchSchedule, NotOpen, RunClosed, WorkflowError
from node.workflow.log import schedules as file
from node.workflow.log.schedules import Firing, Outcome, Row
from node.workflow.serve.executive import Executive
from node.workflow.serve.starts import Starts
from node.workflow.values.dataclass import dataclass
from node.workflow.values.run import Started

log = logging.getLogger(__name__)

AFTER_ERROR_S: Final = 5
FIRINGS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule as it is. `next_at` (unix seconds) is when it looks again; `note` says what was last left out."""

    schedule: Schedule
    paused: bool
    next_at: float | None
    note: str | None
    newest: tuple[Firing, ...] = ()


class Schedules:
    """The schedules of one log. `terminate` and `cancel` end a run."""

    def __init__(
        self,
        executive: Executive,
        starts: Starts,
        terminate: Callable[[str, str], Any],
        cancel: Callable[[str], Any],
        confirmed: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._executive = executive
        self._starts = starts
        self._terminate = terminate
        self._cancel = cancel
        self._confirmed = confirmed
        self._rows: dict[str, Row] = {}
        self._touched: set[str] = set()  # to be looked at whatever their time, as a run of theirs has ended
        self._looking: asyncio.Task[None] | None = None

    async def open(self, declared: Iterable[Schedule]) -> None:
        """Take up the schedules of the file and those that the code declares."""
        self._rows = {row.schedule.id: row for row in file.rows(self._executive.store, self._executive.codec)}
        for schedule in declared:
            await self._put(schedule)
        self._touched.update(self._rows)
        self._executive.clocks.append(self.ring)
        self._executive.on_scheduled_end = self.ended
        self._executive.next_schedule = self._next_ms
        self._look_soon()

    async def close(self) -> None:
        """Start no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def list(self) -> Sequence[Scheduled]:
        """Every schedule, by id."""
        return [_shown(self._rows[name]) for name in sorted(self._rows)]

    def get(self, schedule_id: str) -> Scheduled:
        """A schedule with its newest firings. Raises NoSuchSchedule."""
        return _shown(self._row(schedule_id), file.newest(self._executive.store, schedule_id, FIRINGS_SHOWN))

    async def put(self, schedule: Schedule) -> bool:
        """Make a schedule, or change it: then its times count from now on. Returns whether it is new.

        Raises InvalidInput, UnknownWorkflow, NotRecorded, Unconfirmed.
        """
        if not self._executive.accepting:
            raise NotOpen
        created = await self._put(schedule)
        await self._durable(schedule.id)
        return created

    async def _put(self, schedule: Schedule) -> bool:
        self._check(schedule)
        row = self._rows.get(schedule.id)
        if row is not None and row.schedule == schedule:
            return False
        now_ms = self._executive.now_ms()
        changed = Row(schedule, row is not None and row.paused, now_ms, None, None, row.forgotten if row else 0)
        await self._replace(changed)
        return row is None

    async def delete(self, schedule_id: str) -> None:
        """Remove a schedule; its runs stay. Raises NoSuchSchedule, NotRecorded, Unconfirmed."""
        self._row(schedule_id)
        await self._executive.write(file.remove(schedule_id), f"schedule {schedule_id}")
        self._rows.pop(schedule_id, None)
        await self._durable(schedule_id)

    async def pause(self, schedule_id: str, paused: bool) -> None:
        """Stop or go on. What was due meanwhile is not made up for.

        Raises NoSuchSchedule, NotRecorded, Unconfirmed.
        """
        row = self._row(schedule_id)
        if row.paused != paused:
            await self._replace(replace(row, paused=paused, looked_at=self._executive.now_ms(), next_at=None))
        await self._durable(schedule_id)

    async def trigger(self, schedule_id: str) -> Started:
        """Start a run now, whatever the time and whatever runs. Raises NoSuchSchedule and what a start raises."""
        row = self._row(schedule_id)
        return await self._start(row.schedule, f"{schedule_id}:now:{secrets.token_hex(6)}")

    async def _durable(self, schedule_id: str) -> None:
        self._executive.look_at(self._executive.now_ms())  # another time may be the next now
        await self._confirmed(f"schedule {schedule_id}", self._executive.writer.commits)

    def ended(self, schedule_id: str) -> None:
        """A run of this schedule has ended: what is buffered may begin."""
        self._touched.add(schedule_id)
        self._look_soon()

    def ring(self, now_ms: int) -> int | None:
        """Look at what is due. Returns when the next one is."""
        following: list[int] = []
        for name, row in self._rows.items():
            if row.next_at is None:
                continue
            if row.next_at <= now_ms or row.looked_at > now_ms:  # the latter: the clock went back
                self._touched.add(name)
            else:
                following.append(row.next_at)
        self._look_soon()
        return min(following, default=None)

    def _next_ms(self) -> int | None:
        return min((row.next_at for row in self._rows.values() if row.next_at is not None), default=None)

    # looking

    def _look_soon(self) -> None:
        if self._touched and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="workflow-schedules")

    async def _look(self) -> None:
        try:
            while self._touched and self._executive.accepting:
                name = self._touched.pop()
                row = self._rows.get(name)
                if row is None:
                    continue
                try:
                    await self._look_at(row)
                except NotOpen:
                    return
                except (WorkflowError, apsw.Error) as error:
                    log.error("schedule %s: %s; trying again in %d s", name, error, AFTER_ERROR_S)
                    row.next_at = self._executive.now_ms() + 1000 * AFTER_ERROR_S
                    self._plan(row)
        finally:
            self._looking = None

    async def _look_at(self, row: Row) -> None:
        name, store = row.schedule.id, self._executive.store
        buffered = file.buffered(store, name)
        if buffered and not file.open_runs(store, name):
            await self._fire(row, buffered[0])
        if row.paused:
            return
        now_ms = self._executive.now_ms()
        fired = file.fired(store, name, min(row.looked_at, now_ms))
        found = due(row.schedule, row.looked_at, now_ms, lambda at: at <= row.forgotten or at in fired)
        for at_ms in found.times:
            await self._act(row, at_ms)
        await self._decided(row, found)
        self._plan(row)

    async def _act(self, row: Row, at_ms: int) -> None:
        name, store = row.schedule.id, self._executive.store
        is_there = store.row(row.schedule.run_id(at_ms)) is not None  # it was started, and not written down
        runs = file.open_runs(store, name)
        actions = ("start",) if is_there else act(row.schedule.overlap, bool(runs), file.buffered(store, name))
        for action in actions:
            match action:
                case "start":
                    await self._fire(row, at_ms)
                case "skip":
                    await self._wrote(name, at_ms, "skipped")
                case "buffer":
                    await self._wrote(name, at_ms, "buffered")
                case "replace":
                    await self._wrote(name, at_ms, "buffered", replaces=True)
                case "cancel":
                    await self._end(runs, self._cancel)
                case "terminate":
                    await self._end(runs, lambda run_id: self._terminate(run_id, f"schedule {name} is due again"))

    async def _end(self, runs: Iterable[str], end: Callable[[str], Any]) -> None:
        for run_id in runs:
            try:
                await end(run_id)
            except RunClosed:
                continue

    async def _fire(self, row: Row, at_ms: int) -> None:
        run_id = row.schedule.run_id(at_ms)
        try:
            await self._start(row.schedule, run_id)
        except InvalidInput as error:  # the code has changed since: the next time may fit
            row.note = f"{run_id} was not started: {error}"
            log.error("schedule %s: %s", row.schedule.id, row.note)
            await self._wrote(row.schedule.id, at_ms, "skipped")
            return
        await self._wrote(row.schedule.id, at_ms, "started", run_id)

    async def _start(self, schedule: Schedule, run_id: str) -> Started:
        return await self._starts.start(
            self._starts.checked(
                schedule.workflow,
                schedule.input,
                run_id,
                "use_existing",
                schedule.queue,
                schedule.queue_key,
                schedule.priority,
                schedule.attributes,
                schedule.id,
            )
        )

    def _check(self, schedule: Schedule) -> None:
        """That a start would be taken as it is."""
        self._starts.checked(
            schedule.workflow, schedule.input, "x", "use_existing", schedule.queue, schedule.queue_key,
            schedule.priority, schedule.attributes,
        )  # fmt: skip  # a start, as above

    # the file

    def _row(self, schedule_id: str) -> Row:
        if not self._executive.accepting:
            raise NotOpen
        row = self._rows.get(schedule_id)
        if row is None:
            raise NoSuchSchedule(schedule_id)
        return row

    def _plan(self, row: Row) -> None:
        if row.next_at is not None and self._rows.get(row.schedule.id) is row:
            self._executive.look_at(row.next_at)

    async def _replace(self, row: Row) -> None:
        if not row.paused:
            row.next_at = due(row.schedule, row.looked_at, row.looked_at, lambda _: False).next_at
        await self._executive.write(
            file.put(row, self._executive.now_ms(), self._executive.codec), f"schedule {row.schedule.id}"
        )
        self._rows[row.schedule.id] = row
        self._plan(row)

    async def _wrote(
        self, name: str, at_ms: int, outcome: Outcome, run_id: str | None = None, replaces: bool = False
    ) -> None:
        await self._executive.write(file.fire(name, at_ms, outcome, run_id, replaces), f"schedule {name}")

    async def _decided(self, row: Row, found: Due) -> None:
        note = found.note or row.note
        if (found.looked_at, found.next_at, note) == (row.looked_at, row.next_at, row.note):
            return
        decided = replace(row, looked_at=found.looked_at, next_at=found.next_at, note=note)
        row.forgotten = await self._executive.write(
            file.decide(decided, self._executive.now_ms()), f"schedule {row.schedule.id}"
        )
        row.looked_at, row.next_at, row.note = found.looked_at, found.next_at, note


def _shown(row: Row, newest: tuple[Firing, ...] = ()) -> Scheduled:
    return Scheduled(row.schedule, row.paused, None if row.next_at is None else row.next_at / 1000, row.note, newest)
