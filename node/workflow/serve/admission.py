"""Lets runs out of their queues: the shell around `core/queue.py`.

What counts for a limit is read from the file; what is on its way into it is kept here. One process serves a file, so
nobody else lets runs out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import apsw

from node.workflow.core.queue import PRIORITIES, Queue, Usage, Waiting, free, place, select
from node.workflow.errors import InvalidInput, NotRecorded, WorkflowError
from node.workflow.serve.loaded import Item
from node.workflow.serve.runs import Runs
from node.workflow.values.events import Draft, Kind
from node.workflow.values.run import CLOSED, RunFacts, RunRow

AT_ONCE: Final = 200  # let out before others have their turn on the loop
_FIRST: Final = (-(2**62), "")


class Admission:
    """The queues of one log."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._queues: dict[str, Queue] = {}
        self._arrivals: Counter[str] = Counter()
        self._leaving: dict[str, dict[str, str | None]] = {}  # queue → run → key, until that is in the file
        self._changed: set[str] = set()
        self._again: dict[str, int] = {}

    async def open(self, declared: Sequence[Queue]) -> None:
        """Take up the queues of the file and those that the code declares, and go on with who stands in them."""
        self._queues = {queue.name: queue for queue in self._runs.store.queues()}
        self._arrivals.update(self._runs.store.arrivals())
        for queue in declared:
            before = self._queues.get(queue.name)
            await self.put(queue if before is None else replace(queue, paused=before.paused))
        for name in self._queues:
            self._look(name)

    @property
    def queues(self) -> tuple[Queue, ...]:
        """Every queue, by name."""
        return tuple(self._queues[name] for name in sorted(self._queues))

    async def put(self, queue: Queue) -> None:
        """Make a queue, or change its limits. Raises NotRecorded."""
        if self._queues.get(queue.name) == queue:
            return
        values = (
            queue.name, queue.concurrency, queue.per_key, queue.rate_limit, queue.rate_period_ms, queue.paused
        )  # fmt: skip  # the columns in order

        def do(db: apsw.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO queues VALUES (?, ?, ?, ?, ?, ?)", values)

        await self._runs.write(do, f"queue {queue.name}")
        self._queues[queue.name] = queue
        self._look(queue.name)

    def facts(self, queue: str, key: str | None, priority: int) -> RunFacts:
        """What a run is told that is put into a queue. Raises InvalidInput."""
        if queue not in self._queues:
            known = ", ".join(sorted(self._queues)) or "none"
            raise InvalidInput("queue", f"no queue is named {queue!r:.80}; there are: {known}")
        if priority not in PRIORITIES:
            raise InvalidInput("priority", f"from {PRIORITIES[0]} to {PRIORITIES[-1]}, the lowest first")
        if key is not None and not 1 <= len(key) <= 200:
            raise InvalidInput("queue_key", "from 1 to 200 characters")
        self._arrivals[queue] += 1
        return RunFacts(queue=queue, queue_key=key, priority=priority, place=place(self._arrivals[queue], priority))

    def changed(self, row: RunRow) -> None:
        """A run of a queue is recorded: it may be new, or have ended and left its place to another."""
        queue = row.facts.queue
        if queue is not None and (row.state == "queued" or row.state in CLOSED):
            self._look(queue)

    @property
    def next_ms(self) -> int | None:
        """When a rate limit lets the next run out."""
        return min(self._again.values(), default=None)

    def ring(self, now_ms: int) -> int | None:
        """The time has come for those that a rate limit holds."""
        for name, at in list(self._again.items()):
            if at <= now_ms:
                del self._again[name]
                self._look(name)
        return self.next_ms

    def _look(self, queue: str) -> None:
        """Look at a queue soon, once for all that changed until then."""
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._look_at_changed)
        self._changed.add(queue)

    def _look_at_changed(self) -> None:
        names, self._changed = self._changed, set()
        for name in sorted(names):
            if self._runs.accepting and name in self._queues:
                self._let_out(self._queues[name])

    def _let_out(self, queue: Queue) -> None:
        now_ms = self._runs.now_ms()
        leaving = self._leaving.setdefault(queue.name, {})
        usage = self._runs.store.usage(queue, now_ms)
        usage = Usage(
            usage.running + len(leaving),
            Counter(usage.by_key or {}) + Counter(key for key in leaving.values() if key is not None),
            (*usage.begun, *(now_ms for _ in leaving)),
        )
        count, again_ms = free(queue, usage, now_ms)
        if count > 0:
            for run in select(queue, self._in_order(queue, usage, min(count, AT_ONCE)), usage, now_ms):
                self._let_go(queue.name, run)
        if again_ms is not None and any(
            run.run_id not in leaving for run in self._runs.store.waiting(queue.name, (), _FIRST, len(leaving) + 1)
        ):
            self._again[queue.name] = again_ms
            self._runs.look_at(again_ms)

    def _in_order(self, queue: Queue, usage: Usage, count: int) -> Iterator[Waiting]:
        """Who stands in the queue, at most as many as may leave; read bit by bit, as keys fill up."""
        leaving = self._leaving[queue.name]
        by_key = Counter(usage.by_key or {})
        after = _FIRST
        while count > 0:
            full = [k for k, n in by_key.items() if queue.per_key is not None and n >= queue.per_key]
            page = self._runs.store.waiting(queue.name, full, after, count + len(leaving))
            for run in page:
                if run.run_id in leaving:
                    continue
                if run.key is not None:
                    by_key[run.key] += 1
                    if queue.per_key is not None and by_key[run.key] > queue.per_key:
                        continue
                count -= 1
                yield run
            if not page:
                return
            after = (page[-1].place, page[-1].run_id)

    def _let_go(self, queue: str, run: Waiting) -> None:
        self._leaving[queue][run.run_id] = run.key
        recorded: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        recorded.add_done_callback(lambda done: self._left(queue, run.run_id, done))
        self._runs.send(self._runs.load(run.run_id), Item(Draft(Kind.ADMITTED, {}), recorded))

    def _left(self, queue: str, run_id: str, recorded: asyncio.Future[int]) -> None:
        self._leaving[queue].pop(run_id, None)
        error = None if recorded.cancelled() else recorded.exception()
        if isinstance(error, NotRecorded):  # a full disk, say: not again at once
            self._again[queue] = self._runs.now_ms() + 1_000
            self._runs.look_at(self._again[queue])
        elif error is None or isinstance(error, WorkflowError):
            self._look(queue)
