"""Sweeps out runs that ended long enough ago, between other writes, while the clock can be trusted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from node.workflow.errors import NotOpen, WorkflowError
from node.workflow.log.sweep import Keep, Sweep
from node.workflow.serve.executive import Executive

log = logging.getLogger(__name__)

BETWEEN_S: Final = 0.02
LONGEST_PERIOD_S: Final = 3_600.0
TOLERATED_JUMP_MS: Final = 60_000


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
                self._sweeping = asyncio.get_running_loop().create_task(self._sweep(now_ms), name="workflow-retention")
        return self._next_ms

    def _is_plausible(self, now_ms: int) -> bool:
        """Whether the clock went on as time did: right after it jumped, nothing is taken for old."""
        monotonic_s = asyncio.get_running_loop().time()
        before, self._ages = self._ages, (now_ms, monotonic_s)
        if before is None:
            return True
        return abs((now_ms - before[0]) - 1000 * (monotonic_s - before[1])) <= TOLERATED_JUMP_MS

    async def _sweep(self, now_ms: int) -> None:
        try:
            await self.sweep(now_ms)
        except NotOpen:
            return
        except WorkflowError as error:
            log.error("runs that are past their retention stay for now: %s", error)
        finally:
            self._sweeping = None

    async def sweep(self, now_ms: int | None = None) -> int:
        """Look at every run that has ended once, and remove what the rules say. Returns how many went.

        Old is what was old at `now_ms`, the clock as the sweep began: it may jump before the sweep ends.
        Raises NotRecorded or NotOpen.
        """
        executive = self._executive
        now_ms = executive.now_ms() if now_ms is None else now_ms
        count, after = 0, (0, "")
        while True:
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
