"""Durability: what waits until a commit is confirmed.

One confirmation covers every commit made before it was asked for, so it serves all who wait. An error is *unknown*:
asked again, never taken for done.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from node.workflow.errors import NotOpen
from node.workflow.values.run import Stats

log = logging.getLogger(__name__)

Durable: TypeAlias = Callable[[], Awaitable[None]]  # returns when everything committed before the call is durable

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 5.0


class Gate:
    """Lets through what is confirmed. Marks are numbers that grow with each commit; `current` gives the newest.

    Without `durable` every commit is durable at once.
    """

    def __init__(self, durable: Durable | None, current: Callable[[], int], stats: Stats) -> None:
        self._durable = durable
        self._current = current
        self._stats = stats
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._futures: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._confirmed = -1  # what was committed before this process is 0, and not confirmed either

    def is_confirmed(self, mark: int) -> bool:
        """Whether the commit is known to be durable."""
        return self._durable is None or mark <= self._confirmed

    def when(self, mark: int, then: Callable[[], None]) -> None:
        """Call `then` once the commit is confirmed: now, if it is."""
        if self.is_confirmed(mark):
            then()
            return
        heapq.heappush(self._waiting, (mark, next(self._order), then))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._confirm(), name="workflow-confirm")

    async def wait(self, mark: int) -> None:
        """Return once the commit is confirmed. Raises NotOpen when the gate closes before."""
        if self.is_confirmed(mark):
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.add(done)
        self.when(mark, lambda: None if done.done() else done.set_result(None))
        try:
            await done
        finally:
            self._futures.discard(done)

    async def close(self) -> None:
        """Stop asking; what waits is never let through."""
        self._waiting.clear()
        for future in self._futures:
            if not future.done():
                future.set_exception(NotOpen())
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _confirm(self) -> None:
        assert self._durable is not None  # noqa: S101 - only then anything waits
        wait_s = FIRST_WAIT_S
        while self._waiting:
            mark = self._current()
            try:
                await self._durable()
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the outcome is unknown, so ask again
                self._stats.failed_confirmations += 1
                log.warning("durability is not confirmed (%s), asking again in %.2f s", error, wait_s)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            wait_s = FIRST_WAIT_S
            self._stats.confirmations += 1
            self._confirmed = max(self._confirmed, mark)
            self._release()
        self._task = None

    def _release(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._confirmed:
            heapq.heappop(self._waiting)[2]()
