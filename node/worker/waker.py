"""Tells the node when the tenant wants to run next, so that it may sleep until then."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from node.worker.door import Door, DoorError
from node.workflow import Engine
from node.workflow.errors import NotOpen

log = logging.getLogger("node.worker")

SETTLING_S: Final = 1.0  # many timers are set at once; one of them is next
LONGEST_WAIT_S: Final = 60.0
_NOTHING: Final = object()


class Waker:
    """Looks at the engine's next due time whenever it may have changed, and tells the node when it has."""

    def __init__(self, engine: Engine, door: Door, settling_s: float = SETTLING_S) -> None:
        self._engine = engine
        self._door = door
        self._settling_s = settling_s
        self._told: float | object | None = _NOTHING
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._failures = 0

    def open(self) -> None:
        """Begin, once the engine is open."""
        self._engine.on_plan(self.planned)
        self.planned()

    def planned(self) -> None:
        """Something may be due at another time than before."""
        if self._handle is None and self._task is None:
            self._look_in(self._settling_s)

    async def close(self) -> None:
        """Stop."""
        self._engine.on_plan(lambda: None)
        if self._handle is not None:
            self._handle.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _look_in(self, seconds: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._handle = None
        try:
            at = self._engine.next_due()
        except NotOpen:
            return
        if at != self._told:
            self._task = asyncio.get_running_loop().create_task(self._tell(at), name="wake-at")

    async def _tell(self, at: float | None) -> None:
        try:
            await self._door.wake_at(at)
        except (DoorError, OSError, TimeoutError, EOFError) as error:
            wait_s = min(self._settling_s * 2**self._failures, LONGEST_WAIT_S)
            self._failures += 1
            log.warning("the node was not told when to wake the tenant, again in %g s: %s", wait_s, error)
            self._look_in(wait_s)
        else:
            self._told, self._failures = at, 0
        finally:
            self._task = None
        if self._handle is None:
            self._look()  # what changed meanwhile
