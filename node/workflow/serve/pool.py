"""The activities that run: at most so many at a time, the others queue in the order they were asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from node.workflow.activities import database
from node.workflow.activities.attempts import Attempt
from node.workflow.activities.threads import Threads
from node.workflow.core.command import Pending
from node.workflow.serve.gate import Gate
from node.workflow.serve.loaded import Loaded
from node.workflow.values.events import Draft, Kind
from node.workflow.values.run import Heartbeat, Stats

log = logging.getLogger(__name__)

Deliver: TypeAlias = Callable[[Loaded, Draft], None]
Record: TypeAlias = Callable[[Loaded, int, Heartbeat], None]


class Pool:
    """Runs attempts. `deliver` gets what became of one, unless its run no longer wants it (not in `in_flight`), and
    `record` a heartbeat that is to be kept.
    """

    def __init__(
        self,
        deliver: Deliver,
        record: Record,
        effects: Gate,
        stats: Stats,
        now_ms: Callable[[], int],
        *,
        max_activities: int,
        threads: int,
    ) -> None:
        self._deliver = deliver
        self._record = record
        self._effects = effects
        self._stats = stats
        self._now_ms = now_ms
        self._max_activities = max_activities
        self._threads = Threads(threads)
        self._queue: deque[tuple[Loaded, int]] = deque()
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._open = True
        self.marks = 0  # how many activities have ended with commits of their own

    @property
    def queued(self) -> int:
        """How many wait for a free place."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._tasks)

    @property
    def lost_threads(self) -> int:
        """How many threads run a call that nobody waits for."""
        return self._threads.lost

    def add(self, loaded: Loaded, step: int) -> None:
        """Run this activity when there is a place."""
        if self._open and step in loaded.in_flight:
            self._queue.append((loaded, step))
            self._fill()

    def cancel(self, run_id: str, step: int) -> None:
        """Cancel the attempt, if it runs. Its thread, when it has one, goes on to its end unheard."""
        task = self._tasks.get((run_id, step))
        if task is not None:
            task.cancel()

    async def close(self, grace_s: float) -> None:
        """Start no more, wait up to `grace_s` seconds for those that run, cancel the others."""
        self._open = False
        self._queue.clear()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace_s)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.close()

    def _fill(self) -> None:
        while self._open and self._queue and len(self._tasks) < self._max_activities:
            loaded, step = self._queue.popleft()
            if step not in loaded.in_flight:
                continue
            if loaded.machine is not None and loaded.machine.paused:
                loaded.in_flight.discard(step)  # it is asked for again when the run is resumed
                continue
            key = (loaded.row.id, step)
            cancelled = self._tasks.get(key)
            if cancelled is not None:  # an attempt that still cleans up: the next one waits for it
                cancelled.add_done_callback(partial(self._add_after, loaded, step))
                continue
            task = asyncio.get_running_loop().create_task(self._run(loaded, step))
            self._tasks[key] = task
            task.add_done_callback(partial(self._ended, key))

    def _add_after(self, loaded: Loaded, step: int, _: asyncio.Task[None]) -> None:
        self.add(loaded, step)

    def _ended(self, key: tuple[str, int], task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not task.cancelled() and task.exception() is not None:
            log.error(
                "run %s, step %d: the attempt broke; it runs again after a restart", *key, exc_info=task.exception()
            )
        self._fill()

    async def _run(self, loaded: Loaded, step_id: int) -> None:
        step = loaded.machine.pending.get(step_id) if loaded.machine is not None else None
        if step is None:
            return
        commits_before = database.commits()
        attempt = Attempt(
            loaded.row.id, loaded.row.name, step, partial(self._beat, loaded, step), loaded.last_heartbeat(step_id)
        )
        began = time.perf_counter()
        draft = await attempt.run(self._threads, self._now_ms)
        self._stats.attempt_seconds.add(time.perf_counter() - began)
        if draft.kind == Kind.ACTIVITY_COMPLETED and database.commits() != commits_before:
            # A result must not outlive what it stands for. The mark is set now that the commits are done: they are
            # counted as they begin, and a confirmation in between would not have seen them.
            self.marks += 1
            await self._effects.wait(self.marks)
        if step_id in loaded.in_flight:
            retried = draft.kind == Kind.ATTEMPT_FAILED
            self._stats.steps += not retried
            self._stats.retries += retried
            self._deliver(loaded, draft)

    def _beat(self, loaded: Loaded, step: Pending, details: str) -> None:
        if step.command.id in loaded.in_flight:
            self._record(loaded, step.command.id, Heartbeat(step.failed_attempts + 1, self._now_ms(), details))
