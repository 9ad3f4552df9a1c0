"""The shell around the pure core: loads runs, appends what they decide, and acts on what is durable.

Everything here happens on the event loop's thread, but for the writer's commits. A run that waits for a timer or a
signal costs neither a task nor a thread; one alarm serves all timers, and the file knows them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

import apsw

from node.workflow.core.definition import Workflow
from node.workflow.errors import NoSuchRun, NotOpen, NotRecorded, RunClosed
from node.workflow.log.codec import Codec
from node.workflow.log.sqlite import Synchronous
from node.workflow.log.store import Store
from node.workflow.log.writer import Append, Task, Writer, Written
from node.workflow.serve.admission import Admission
from node.workflow.serve.alarm import Alarm
from node.workflow.serve.ends import Ends
from node.workflow.serve.gate import Durable, Gate
from node.workflow.serve.loaded import Item, Loaded, fire_due_retries
from node.workflow.serve.loader import Loader
from node.workflow.serve.pool import Pool
from node.workflow.serve.post import Post
from node.workflow.serve.watch import Watch
from node.workflow.values.events import RESULTS, Draft, Kind
from node.workflow.values.run import CLOSED, Heartbeat, State, Stats

log = logging.getLogger(__name__)

T = TypeVar("T")

TIMERS_AT_ONCE: Final = 100  # each may be a replay, and others want their turn on the loop
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
        codec: Codec | None,
    ) -> None:
        self.stats = Stats()
        self.accepting = False
        self.writer = Writer(path, synchronous, checkpoint, self._acknowledged, codec)
        self.gate = Gate(durable, lambda: self.writer.commits, self.stats)
        self.ends = Ends(self.gate)
        self.watch = Watch()
        self.ends.on_told = self.watch.touched
        self._effects = Gate(effects_durable or durable, lambda: self._pool.marks, self.stats)
        self._pool = Pool(
            self._deliver,
            self._beat,
            self._effects,
            self.stats,
            self.now_ms,
            max_activities=max_activities,
            threads=threads,
        )
        self._alarm = Alarm(self._fire_timers, self.now_ms)
        self._path = path
        self._checkpoint = checkpoint
        self.codec = codec
        self._definitions = definitions
        self._clock = clock
        self._keep_idle = keep_idle
        self._loaded: dict[str, Loaded] = {}
        self.loader = Loader(definitions, lambda: self.store, self.now_ms, self.stats, self._go_on)
        self._idle: OrderedDict[str, None] = OrderedDict()
        self.admission = Admission(self)
        self.post = Post(self, definitions)
        # What else has times of its own: called with the time, says when it wants to be called again (or None).
        self.clocks: list[Callable[[int], int | None]] = [self.admission.ring]
        self.next_schedule: Callable[[], int | None] = lambda: None
        self.on_scheduled_end: Callable[[str], None] = lambda schedule: None
        self._store: Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # life

    def open(self) -> None:
        """Open the file and go on with every run that has an activity to run, or that was blocked."""
        self._loop = asyncio.get_running_loop()
        self.writer.open()
        self._store = Store(self._path, self._checkpoint, self.codec)
        self.accepting = True
        self.stats.runs = self._store.counts()
        self.gate.when(0, lambda: None)  # ends that the file has already are told once it is confirmed
        self.loader.each(self._store.active(), self.look_over)
        self.post.open()
        self._alarm.ring()

    async def close(self, grace_s: float) -> None:
        """Let running activities end for `grace_s` seconds, cancel the others, write what is queued, close the file."""
        await self._pool.close(grace_s)
        self.accepting = False
        self._alarm.close()
        await self.loader.close()
        await asyncio.to_thread(self.writer.close)
        await asyncio.sleep(0)  # the acknowledgements of the last commits
        await self.gate.close()
        await self._effects.close()
        self.ends.close()
        self.watch.close()
        for loaded in list(self._loaded.values()):
            for item in (*loaded.inbox, *(loaded.writing or ())):
                item.refuse(NotOpen())
            self._forget(loaded)
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

    @property
    def backlog(self) -> int:
        """How many activities wait for a free place."""
        return self._pool.queued

    def snapshot(self) -> Stats:
        """A copy of the counters."""
        self.stats.queued_activities = self._pool.queued
        self.stats.running_activities = self._pool.running
        self.stats.lost_threads = self._pool.lost_threads
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

    def adopt(self, run_id: str) -> None:
        """Go on with a run that is in the file and that nobody has seen yet."""
        self.stats.runs["running"] += 1
        self._advance(self.load(run_id))
        self._alarm.set(self.now_ms())

    def in_memory(self, run_id: str) -> bool:
        """Whether the run is in memory; it may not be in the file yet."""
        return run_id in self._loaded

    def load(self, run_id: str) -> Loaded:
        """A run that has not ended, from memory or replayed from its log. Raises NoSuchRun."""
        loaded = self._loaded.get(run_id)
        if loaded is None:
            row = self.store.row(run_id)
            if row is None:
                raise NoSuchRun(run_id)
            began = time.perf_counter()
            loaded = self._loaded[run_id] = self.loader.load(row)
            self.stats.replay_seconds.add(time.perf_counter() - began)
            loaded.commit = self.writer.commits  # which one is not known, so as late as it can be
        self._idle.pop(run_id, None)
        return loaded

    def look_over(self, run_id: str) -> None:
        """Replay an open run that is not in memory: it is blocked when the code does not fit."""
        if self.accepting and run_id not in self._loaded:
            self._advance(self.load(run_id))

    def _go_on(self, loaded: Loaded) -> None:
        """Its long history has been replayed."""
        if self._loaded.get(loaded.row.id) is not loaded or not self.accepting:
            self._forget(loaded)
            return
        self._advance(loaded)
        self._alarm.set(self.now_ms())  # its timers were passed over

    def _beat(self, loaded: Loaded, step: int, heartbeat: Heartbeat) -> None:
        if self._loaded.get(loaded.row.id) is loaded:
            loaded.beat(step, heartbeat)
            self._advance(loaded)

    def _deliver(self, loaded: Loaded, draft: Draft) -> None:
        self.send(loaded, Item(draft))

    # progress

    def _advance(self, loaded: Loaded) -> None:
        if loaded.writing is not None or loaded.loading:
            return
        archive_id, items = self.store.archive_id, list(loaded.inbox)
        loaded.inbox.clear()
        try:
            append = loaded.advance(items, self.now_ms(), archive_id)
        except Exception as error:  # the file can't be read, or a fault of ours: it is this run's alone
            log.error("run %s: what comes next could not be decided", loaded.row.id, exc_info=error)
            loaded.inbox.extendleft(reversed(items))
            self._go_back(loaded, str(error), in_file=loaded.counted is not None)
            return
        loaded.in_flight.difference_update([item.draft.facts["id"] for item in items if item.draft.kind in RESULTS])
        if append is None:
            for item in items:  # it meant nothing new: as done as what it repeats
                item.accept(loaded.commit)
            self._settle(loaded)
            return
        loaded.writing = items
        if append.run.state in CLOSED:
            self.ends.hide(append.run.id)
        self.writer.submit(append)

    def _acknowledged(self, written: list[Written]) -> None:
        """On the writer's thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_written, written)

    def _on_written(self, written: list[Written]) -> None:
        if written[0].error is None:
            self.stats.commits += 1
            self.stats.last_commit_batch = len(written)
            self.stats.commit_batches.add(len(written))
        for one in written:
            if isinstance(one.append, Task):
                self._task_written(one.append, one.error)
                continue
            try:
                self._append_written(one.append, one)
            except Exception as error:  # noqa: BLE001 - what breaks for one run must not strand the others of its commit
                self._broke(one.append, one, error)

    def _append_written(self, append: Append, one: Written) -> None:
        loaded = self._loaded.get(append.run.id)
        if loaded is None:
            return
        if one.error is None:
            self._recorded(loaded, append, one.commit)
        else:
            self._not_recorded(loaded, append, str(one.error))

    def _broke(self, append: Append, one: Written, error: Exception) -> None:
        """What follows from a commit broke half-way: go on from the log. Letters that have not left go when the file is
        opened next.
        """
        run_id = append.run.id
        log.error("run %s: what follows from its commit broke", run_id, exc_info=error)
        loaded = self._loaded.get(run_id)
        if one.error is None and append.run.state in CLOSED:
            if loaded is not None:
                self._drop(loaded, str(error))
            self.ends.recorded(run_id, one.commit)
        elif loaded is not None:
            self._go_back(loaded, str(error), in_file=one.error is None or not append.chain[0].created)

    async def write(self, do: Callable[[apsw.Connection], T], about: str) -> T:
        """Have the writer do something in a transaction; returns what it returned once that is committed.

        Raises NotOpen, or NotRecorded that names what it is `about`.
        """
        if not self.accepting:
            raise NotOpen
        task = Task(do, asyncio.get_running_loop().create_future())
        self.writer.submit(task)
        try:
            return cast(T, await asyncio.shield(task.done))
        except apsw.Error as error:
            raise NotRecorded(about, str(error)) from None

    def write_later(self, do: Callable[[apsw.Connection], None]) -> None:
        """Have the writer do something that nobody waits for and that may be lost with a crash or a full disk."""
        if self.accepting:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.add_done_callback(lambda future: future.exception())
            self.writer.submit(Task(do, done))

    def _task_written(self, task: Task, error: Exception | None) -> None:
        if task.done.done():
            return
        if error is None:
            task.done.set_result(task.result)
        else:
            task.done.set_exception(error)

    def _recorded(self, loaded: Loaded, append: Append, commit: int) -> None:
        items, loaded.writing = loaded.writing or [], None
        loaded.commit, loaded.failed_appends = commit, 0
        for item in items:
            item.accept(commit)
        if loaded.counted == "blocked":
            self._alarm.set(self.now_ms())  # its timers were passed over
        if append.timers_set:
            self._alarm.set(min(due for _, _, due in append.timers_set))
        self._count(append, loaded)
        self.watch.touched(append.run.id)
        if append.run.facts.queue is not None:
            self.admission.changed(append.run)
        for part in append.chain:
            for letter in part.letters:
                self.post.deliver(letter)
            if part.archived is not None and part.before is not None:
                self.post.continued(part.run.id, part.archived)
        if append.run.state in CLOSED:
            for item in loaded.inbox:
                item.refuse(RunClosed(append.run.id, append.run.state))
            self._forget(loaded)
            self.ends.recorded(append.run.id, commit)
            self.post.closed(append.run.id)
            if append.run.facts.schedule is not None:
                self.on_scheduled_end(append.run.facts.schedule)
            return
        if loaded.inbox or loaded.beaten:
            self._dispatch(loaded)
            self._advance(loaded)
        else:
            self._settle(loaded)

    def _count(self, append: Append, loaded: Loaded) -> None:
        self.stats.events += sum(len(part.log) for part in append.chain)
        self.stats.runs["continued"] += len(append.chain) - 1
        if loaded.counted != append.run.state:
            if loaded.counted is not None:
                self.stats.runs[loaded.counted] -= 1
            self.stats.runs[append.run.state] += 1
            loaded.counted = append.run.state

    def _not_recorded(self, loaded: Loaded, append: Append, reason: str) -> None:
        self.stats.failed_commits += 1
        log.error("run %s: the log could not be written: %s", loaded.row.id, reason)
        self.ends.dropped(loaded.row.id)
        self._go_back(loaded, reason, in_file=not append.chain[0].created)

    def _go_back(self, loaded: Loaded, reason: str, *, in_file: bool) -> None:
        """The machine is ahead of the file: drop it and, with what must not be lost, go on from the log later."""
        results = self._drop(loaded, reason)
        if in_file:
            self._try_later(loaded.row.id, results, loaded.failed_appends)

    def _drop(self, loaded: Loaded, reason: str) -> list[Item]:
        """Forget a run, and refuse what is not recorded of it. Returns the results among that."""
        items = [*(loaded.writing or ()), *loaded.inbox]
        for item in items:
            item.refuse(NotRecorded(loaded.row.id, reason))
        loaded.writing = None
        self._forget(loaded)
        return [item for item in items if item.draft.kind in RESULTS]

    def _try_later(self, run_id: str, results: list[Item], failed_appends: int) -> None:
        wait_s = min(FIRST_RETRY_S * 2 ** min(failed_appends, 16), LONGEST_RETRY_S)
        asyncio.get_running_loop().call_later(wait_s, self._try_again, run_id, results, failed_appends + 1)

    def _try_again(self, run_id: str, results: list[Item], failed_appends: int) -> None:
        if not self.accepting:
            return
        try:
            loaded = self.load(run_id)
        except apsw.Error as error:
            log.error("run %s: the log can't be read: %s", run_id, error)
            self._try_later(run_id, results, failed_appends)
            return
        loaded.failed_appends = failed_appends
        loaded.inbox.extend(results)
        self._advance(loaded)
        self._alarm.set(self.now_ms())

    def _dispatch(self, loaded: Loaded) -> None:
        """Have activities run once every result that they were computed from is durable."""
        for step in loaded.abandoned():
            self._abandon(loaded, step)
        for step in loaded.to_dispatch():
            loaded.in_flight.add(step)
            self.gate.when(loaded.commit, partial(self._pool.add, loaded, step))

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

    def _forget(self, loaded: Loaded) -> None:
        for step in list(loaded.in_flight):
            self._abandon(loaded, step)
        if loaded.machine is not None:
            loaded.machine.close()
            loaded.machine = None
        self._loaded.pop(loaded.row.id, None)
        self._idle.pop(loaded.row.id, None)

    def _abandon(self, loaded: Loaded, step: int) -> None:
        loaded.in_flight.discard(step)
        self._pool.cancel(loaded.row.id, step)

    # timers

    def _fire_timers(self) -> int | None:
        """Fire what is due. Returns when to look again."""
        now_ms = self.now_ms()
        due = self.store.due_timers(now_ms, TIMERS_AT_ONCE)
        touched = {run_id: self.load(run_id) for run_id in dict.fromkeys(run_id for run_id, _ in due)}
        for run_id, step in due:
            loaded = touched[run_id]
            pending = loaded.machine.pending.get(step) if loaded.machine is not None else None
            if pending is not None and pending.activity is None and not loaded.timer_is_firing(step):
                loaded.inbox.append(Item(Draft(Kind.TIMER_FIRED, {"id": step})))
        for loaded in touched.values():
            fire_due_retries(loaded, now_ms)
            self._advance(loaded)
        later = [now_ms + 1 if len(due) == TIMERS_AT_ONCE else self.store.next_due_ms(now_ms)]
        later += [ring(now_ms) for ring in self.clocks]
        return min((at for at in later if at is not None), default=None)

    def removed(self, state: State, count: int) -> None:
        """Runs in this state are no longer in the file."""
        self.stats.runs[state] -= count

    def next_due_ms(self) -> int | None:
        """When something is to go on next (unix milliseconds): a timer, a schedule, a queue; in the past: it is due.

        A run that waits for a signal or whose activity runs has no such time.
        """
        due = [self.store.first_due_ms(), self.admission.next_ms, self.next_schedule()]
        return min((at for at in due if at is not None), default=None)

    def on_plan(self, then: Callable[[], None]) -> None:
        """Call `then` whenever `next_due_ms` may have changed."""
        self._alarm.on_plan = then

    def look_at(self, due_ms: int) -> None:
        """Something is due at this time."""
        self._alarm.set(due_ms)
