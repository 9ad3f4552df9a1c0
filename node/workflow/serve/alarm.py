"""One alarm for every timer of the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

LONGEST_SLEEP_S: Final = 30.0  # the wall clock may jump, so it is looked at now and then
AFTER_ERROR_S: Final = 1.0


class Alarm:
    """Calls `fire` when something is due; `fire` returns when the next thing is (unix milliseconds), or None."""

    def __init__(self, fire: Callable[[], int | None], now_ms: Callable[[], int]) -> None:
        self._fire = fire
        self._now_ms = now_ms
        self._handle: asyncio.TimerHandle | None = None
        self._due_ms: int | None = None
        self._closed = False
        self.on_plan: Callable[[], None] = _nothing  # called when something may be due at another time than before

    def set(self, due_ms: int) -> None:
        """Something is due at this time: ring then, or earlier if that was the plan."""
        self.on_plan()
        if self._closed or (self._due_ms is not None and self._due_ms <= due_ms):
            return
        if self._handle is not None:
            self._handle.cancel()
        self._due_ms = due_ms
        wait_s = min(max(due_ms - self._now_ms(), 1) / 1000, LONGEST_SLEEP_S)
        self._handle = asyncio.get_running_loop().call_later(wait_s, self.ring)

    def ring(self) -> None:
        """Fire what is due now and plan the next time."""
        if self._closed:
            return
        now_ms = self._now_ms()
        try:
            next_ms = self._fire()
        except Exception:  # a broken read must not be the last time that timers are looked at
            log.exception("timers could not be fired, trying again in %g s", AFTER_ERROR_S)
            next_ms = now_ms + int(1000 * AFTER_ERROR_S)
        self._due_ms = None
        self.set(now_ms + int(1000 * LONGEST_SLEEP_S) if next_ms is None else next_ms)

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()


def _nothing() -> None: ...
