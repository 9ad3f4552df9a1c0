"""Heartbeats: an activity says that it lives and how far it is; its next attempt is told."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from dataclasses import field
from typing import Any, Final

from node.workflow.errors import AttemptOver, NotStorable
from node.workflow.values.dataclass import dataclass
from node.workflow.values.payload import encode

RECORDED_EVERY_S: Final = 1.0
LARGEST_DETAILS: Final = 64 * 1024  # characters


@dataclass(slots=True, eq=False)
class Pulse:
    """The heartbeats of one attempt. `record` is told of one a second at most; `beaten` of each. All on the loop."""

    loop: asyncio.AbstractEventLoop
    record: Callable[[str], None]
    every_s: float = RECORDED_EVERY_S
    beaten: Callable[[], None] = lambda: None
    over: bool = False
    thread: int = field(default_factory=threading.get_ident)  # of the loop
    _unrecorded: str | None = None
    _recorded_at: float = float("-inf")
    _timer: asyncio.TimerHandle | None = None

    def beat(self, details: str) -> None:
        """A heartbeat has come."""
        if self.over:
            return
        self.beaten()
        self._unrecorded = details
        wait_s = self._recorded_at + self.every_s - self.loop.time()
        if wait_s <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = self.loop.call_later(wait_s, self.flush)

    def flush(self) -> None:
        """Record the newest one, if it is not recorded yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unrecorded is not None:
            details, self._unrecorded = self._unrecorded, None
            self._recorded_at = self.loop.time()
            self.record(details)

    def end(self) -> None:
        """The attempt is over: its next heartbeat is told so."""
        self.over = True
        self.flush()


_pulse: contextvars.ContextVar[Pulse] = contextvars.ContextVar("heartbeat")


def set_pulse(pulse: Pulse) -> contextvars.Token[Pulse]:
    """Have `heartbeat` of the code that is called from here heard by `pulse`."""
    return _pulse.set(pulse)


def reset_pulse(token: contextvars.Token[Pulse]) -> None:
    """Undo `set_pulse`."""
    _pulse.reset(token)


def heartbeat(details: Any = None) -> None:
    """Say from an activity, sync or async, that it lives, and how far it is.

    `details` (JSON, at most 64 Ki characters) is recorded about once a second, and when the attempt fails; the next
    attempt finds it in `activity_info().heartbeat_details`. Raises NotStorable, LookupError outside of an activity, and
    AttemptOver when the attempt is cancelled or past its time: clean up and let it through.
    """
    pulse = _pulse.get()
    text = encode(details, "the details of a heartbeat")
    if len(text) > LARGEST_DETAILS:
        raise NotStorable(f"the details of a heartbeat are {len(text)} characters long: at most {LARGEST_DETAILS}")
    if pulse.over:
        raise AttemptOver
    if threading.get_ident() == pulse.thread:
        pulse.beat(text)
        return
    pulse.loop.call_soon_threadsafe(pulse.beat, text)
