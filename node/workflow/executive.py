"""The shell around the pure core: loads runs, appends what they decide, and acts on what is durable.

Everything here happens on the event loop's thread, but for the writer's commits. A run that waits for a timer or a
signal costs neither a task nor a thread; one alarm serves all timers, and the file knows them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from node.workflow import database
from node.workflow.attempts import attempt
from node.workflow.define import Workflow
from node.workflow.errors import NoSuchRun, NotOpen, NotRecorded, RunClosed, UnknownWorkflow
from node.workflow.events import RESULTS, Draft, Kind
from node.workflow.gate import Durable, Gate
from node.workflow.loaded import Item, Loaded, fire_due_retries, replayed
from node.workflow.run import CLOSED, RunRow, Stats
from node.workflow.sqlite import Synchronous
from node.workflow.store import Store
from node.workflow.writer import Append, Writer, Written

log = logging.getLogger(__name__)

TIMERS_AT_ONCE: Final = 1_000
LONGEST_SLEEP_S: Final = 30.0  # the wall clock may jump, so it is looked at now and then
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 10.0


class Executive:
    """Runs the runs of one log."""

    def __init__(
        self,
        path: Path,
        definitions: Mapping[str, Workflow],
        *,
        durable: Durable | None,
        effects_durable: Durable | None,
        synchronous: Synchronous,
        checkpoint: bool,
        clock: Callable[[], float],
        max_activities: int,
        threads: int,
        keep_idle: int,
    ) -> None:
        self.stats = Stats()
        self.definitions = definitions
        self.writer = Writer(path, synchronous, checkpoint, self._acknowledged)
        self.gate = Gate(durable, lambda: self.writer.commits, self.stats)
        self._effects = Gate(effects_durable or durable, database.commits, self.stats)
        self._path = path
        self._clock = clock
        self._max_activities = max_activities
        self._keep_idle = keep_idle
        self._executor = ThreadPoolExecutor(threads, "workflow-activity")
        self._loaded: dict[str, Loaded] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._ready: deque[tuple[Loaded, int]] = deque()
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._ends: dict[str, list[asyncio.Future[None]]] = {}
        self._unconfirmed_ends: dict[str, int] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepting = False

    # life

    def open(self) -> None:
        """Open the file and go on with every run that has an activity to run, or that was blocked."""
        self._loop = asyncio.get_running_loop()
        self.writer.open()
        self._store = Store(self._path)
        self._accepting = True
        self.stats.runs = self._store.counts()
        self.gate.when(0, lambda: None)
        for run_id in self._store.active():
            self._advance(self.load(run_id))
        self._ring()

    async def close(self, grace_s: float) -> None:
        """Let running activities end for `grace_s` seconds, cancel the others, write what is queued, close the file."""
        self._accepting = False
        self._ready.clear()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace_s)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.writer.close)
        await asyncio.sleep(0)  # the acknowledgements of the last commits
        await self.gate.close()
        await self._effects.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for waiting in self._ends.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(NotOpen())
        for loaded in self._loaded.values():
            if loaded.machine is not None:
                loaded.machine.close()
        self._loaded.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def store(self) -> Store:
        """The reader. Raises NotOpen."""
        if self._store is None:
            raise NotOpen
        return self._store

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return int(self._clock() * 1000)

    def snapshot(self) -> Stats:
        """A copy of the counters."""
        self.stats.queued_activities = len(self._ready)
        self.stats.running_activities = len(self._tasks)
        self.stats.loaded_runs = len(self._loaded)
        return self.stats.snapshot()

    # what comes in

    def send(self, loaded: Loaded, item: Item) -> None:
        """Put an input on its way to a run."""
        loaded.inbox.append(item)
        self._advance(loaded)

    def add(self, loaded: Loaded) -> None:
        """Take a new run into memory."""
        self._loaded[loaded.row.id] = loaded

    def is_loaded(self, run_id: str) -> bool:
        """Whether the run is in memory, in the file already or on its way there."""
        return run_id in self._loaded

    def load(self, run_id: str) -> Loaded:
        """A run that has not ended, from memory or replayed from its log. Raises NoSuchRun."""
        loaded = self._loaded.get(run_id)
        if loaded is None:
            row = self.store.row(run_id)
            if row is None:
                raise NoSuchRun(run_id)
            loaded = self._loaded[run_id] = self._replay(row)
            loaded.commit = self.writer.commits  # not known, so not older than the newest
        self._idle.pop(run_id, None)
        return loaded

    def _replay(self, row: RunRow) -> Loaded:
        timers = self.store.timers(row.id)
        definition = self.definitions.get(row.name)
        if definition is None:
            loaded = Loaded(row, None, timers, counted=row.state)
            loaded.block(UnknownWorkflow(row.name, tuple(self.definitions)))
            return loaded
        events = self.store.events(row.id)
        self.stats.replayed_events += len(events)
        return replayed(definition, row, events, timers, self.now_ms())

    # progress

    def _advance(self, loaded: Loaded) -> None:
        if loaded.writing is not None:
            return
        items = list(loaded.inbox)
        loaded.inbox.clear()
        append = loaded.advance(items, self.now_ms())
        loaded.in_flight.difference_update([item.draft.facts["id"] for item in items if item.draft.kind in RESULTS])
        if append is None:
            for item in items:  # it meant nothing new: as done as what it repeats
                if item.recorded is not None and not item.recorded.done():
                    item.recorded.set_result(loaded.commit)
            self._settle(loaded)
            return
        loaded.writing = items
        self.writer.submit(append)

    def _acknowledged(self, written: list[Written]) -> None:
        """On the writer's thread."""
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        self._loop.call_soon_threadsafe(self._on_written, written)

    def _on_written(self, written: list[Written]) -> None:
        if written[0].error is None:
            self.stats.commits += 1
            self.stats.last_commit_batch = len(written)
        for one in written:
            loaded = self._loaded.get(one.append.run.id)
            if loaded is not None:
                if one.error is None:
                    self._recorded(loaded, one.append, one.commit)
                else:
                    self._not_recorded(loaded, one.append, str(one.error))

    def _recorded(self, loaded: Loaded, append: Append, commit: int) -> None:
        items, loaded.writing = loaded.writing or [], None
        loaded.commit, loaded.retries_failed = commit, 0
        self._count(append, loaded)
        for item in items:
            if item.recorded is not None and not item.recorded.done():
                item.recorded.set_result(commit)
        if append.timers_set:
            self._arm(min(due for _, _, due in append.timers_set))
        if append.run.state in CLOSED:
            self._ended(loaded, commit)
            return
        self._dispatch(loaded)
        self._advance(loaded) if loaded.inbox else self._settle(loaded)

    def _count(self, append: Append, loaded: Loaded) -> None:
        self.stats.events += len(append.log)
        before = loaded.counted
        if before != append.run.state:
            if before is not None:
                self.stats.runs[before] -= 1
            self.stats.runs[append.run.state] += 1
            loaded.counted = append.run.state

    def _not_recorded(self, loaded: Loaded, append: Append, reason: str) -> None:
        """The machine is ahead of the file now: drop it and, with what must not be lost, go on from the log later."""
        self.stats.failed_commits += 1
        run_id = loaded.row.id
        log.error("run %s: the log could not be written: %s", run_id, reason)
        items = [*(loaded.writing or []), *loaded.inbox]
        for item in items:
            item.refuse(NotRecorded(run_id, reason))
        self._forget(loaded)
        if append.created or self._loop is None or not self._accepting:
            return
        kept = [item for item in items if item.recorded is None and item.draft.kind != Kind.TIMER_FIRED]
        wait_s = min(FIRST_RETRY_S * 2**loaded.retries_failed, LONGEST_RETRY_S)
        self._loop.call_later(wait_s, self._try_again, run_id, kept, loaded.retries_failed + 1)

    def _try_again(self, run_id: str, items: list[Item], failures: int) -> None:
        if not self._accepting:
            return
        loaded = self.load(run_id)
        loaded.retries_failed = failures
        loaded.inbox.extend(items)
        self._advance(loaded)
        self._ring()

    def _settle(self, loaded: Loaded) -> None:
        """Nothing is being written for this run: act on what it waits for; let it leave memory if it only waits."""
        self._dispatch(loaded)
        if not loaded.idle:
            return
        if loaded.machine is None:
            self._forget(loaded)
            return
        self._idle[loaded.row.id] = None
        while len(self._idle) > self._keep_idle:
            self._forget(self._loaded[next(iter(self._idle))])

    def _dispatch(self, loaded: Loaded) -> None:
        for step in loaded.abandoned():
            self._abandon(loaded, step)
        for step in loaded.to_dispatch():
            loaded.in_flight.add(step)
            self.gate.when(loaded.commit, partial(self._enqueue, loaded, step))

    def _forget(self, loaded: Loaded) -> None:
        run_id = loaded.row.id
        for step in list(loaded.in_flight):
            self._abandon(loaded, step)
        if loaded.machine is not None:
            loaded.machine.close()
            loaded.machine = None
        self._loaded.pop(run_id, None)
        self._idle.pop(run_id, None)

    def _abandon(self, loaded: Loaded, step: int) -> None:
        loaded.in_flight.discard(step)
        task = self._tasks.get((loaded.row.id, step))
        if task is not None:
            task.cancel()

    # ends

    def _ended(self, loaded: Loaded, commit: int) -> None:
        run_id = loaded.row.id
        for item in loaded.inbox:
            item.refuse(RunClosed(run_id, loaded.row.state))
        self._forget(loaded)
        if not self.gate.is_confirmed(commit):
            self._unconfirmed_ends[run_id] = commit
        self.gate.when(commit, lambda: self._end_confirmed(run_id))

    def _end_confirmed(self, run_id: str) -> None:
        self._unconfirmed_ends.pop(run_id, None)
        for future in self._ends.pop(run_id, ()):
            if not future.done():
                future.set_result(None)

    def end_is_confirmed(self, run_id: str) -> bool:
        """Whether the end of a closed run is known to be durable."""
        return self.gate.is_confirmed(self._unconfirmed_ends.get(run_id, 0))

    async def wait_end(self, run_id: str) -> None:
        """Return once the run has ended and its end is durable."""
        row = self.store.row(run_id)
        if row is not None and row.state in CLOSED:
            await self.gate.wait(self._unconfirmed_ends.get(run_id, 0))
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._ends.setdefault(run_id, [])
        waiting.append(future)
        try:
            await future
        finally:
            if future in waiting:
                waiting.remove(future)
            if not waiting and self._ends.get(run_id) is waiting:
                del self._ends[run_id]

    # activities

    def _enqueue(self, loaded: Loaded, step: int) -> None:
        if self._accepting and step in loaded.in_flight:
            self._ready.append((loaded, step))
            self._fill()

    def _fill(self) -> None:
        while self._ready and len(self._tasks) < self._max_activities and self._accepting:
            loaded, step = self._ready.popleft()
            key = (loaded.row.id, step)
            if step not in loaded.in_flight or self._loaded.get(key[0]) is not loaded:
                continue
            previous = self._tasks.get(key)
            if previous is not None:  # a cancelled attempt that is still cleaning up
                previous.add_done_callback(partial(self._enqueue_after, loaded, step))
                continue
            task = asyncio.get_running_loop().create_task(self._run(loaded, step))
            self._tasks[key] = task
            task.add_done_callback(partial(self._freed, key))

    def _enqueue_after(self, loaded: Loaded, step: int, _: asyncio.Task[None]) -> None:
        self._enqueue(loaded, step)

    def _freed(self, key: tuple[str, int], _: asyncio.Task[None]) -> None:
        del self._tasks[key]
        self._fill()

    async def _run(self, loaded: Loaded, step_id: int) -> None:
        machine = loaded.machine
        step = machine.pending.get(step_id) if machine is not None else None
        if step is None:
            return
        commits_before = database.commits()
        draft = await attempt(loaded.row.id, loaded.row.name, step, self._executor, self.now_ms)
        if draft.kind == Kind.ACTIVITY_COMPLETED and database.commits() != commits_before:
            await self._effects.wait(database.commits())  # a result must not outlive what it was computed from
        if step_id in loaded.in_flight:
            self.stats.steps += draft.kind != Kind.ATTEMPT_FAILED
            self.stats.retries += draft.kind == Kind.ATTEMPT_FAILED
            self.send(loaded, Item(draft))

    # timers

    def _ring(self) -> None:
        """Fire what is due, then set the alarm for what is next."""
        if self._store is None or not self._accepting:
            return
        now_ms = self.now_ms()
        due = self._store.due_timers(now_ms, TIMERS_AT_ONCE)
        touched: dict[str, Loaded] = {}
        for run_id, step in due:
            loaded = touched[run_id] = self.load(run_id)
            pending = loaded.machine.pending.get(step) if loaded.machine is not None else None
            sent = any(
                i.draft.kind == Kind.TIMER_FIRED and i.draft.facts["id"] == step for i in self._under_way(loaded)
            )
            if pending is not None and pending.activity is None and not sent:
                loaded.inbox.append(Item(Draft(Kind.TIMER_FIRED, {"id": step})))
        for loaded in touched.values():
            if loaded.writing is None:
                fire_due_retries(loaded, now_ms)
            self._advance(loaded)
        self._alarm_ms = 0
        next_ms = now_ms + 50 if len(due) == TIMERS_AT_ONCE else self._store.next_due_ms(now_ms)
        self._arm(next_ms if next_ms is not None else now_ms + int(1000 * LONGEST_SLEEP_S))

    def _under_way(self, loaded: Loaded) -> Iterable[Item]:
        return (*loaded.inbox, *(loaded.writing or ()))

    def _arm(self, due_ms: int) -> None:
        assert self._loop is not None  # noqa: S101 - set by open
        if not self._accepting or (self._alarm_ms and self._alarm_ms <= due_ms):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ms = due_ms
        wait_s = min(max(due_ms - self.now_ms(), 1) / 1000, LONGEST_SLEEP_S)
        self._alarm = self._loop.call_later(wait_s, self._ring)
