"""Virtual time: one heap of events for the whole world, and each machine's own clock, which may drift or stop."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_TINY_S = 1e-9


class Event:
    """Something that will happen; cancelled by dropping its call."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It does not happen."""
        self.call = None


class Scheduler:
    """True time, seconds. Events of one moment happen in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Event]] = []
        self._asked = 0
        self._soon: deque[Callable[[], None]] = deque()

    def soon(self, call: Callable[[], None]) -> None:
        """Call at this moment, before anything else that is due in it."""
        self._soon.append(call)

    def at(self, when: float, call: Callable[[], None]) -> Event:
        """Call at a moment, now at the earliest."""
        event = Event(call)
        self._asked += 1
        heapq.heappush(self._heap, (max(when, self.now), self._asked, event))
        return event

    def after(self, seconds: float, call: Callable[[], None]) -> Event:
        """Call in so many seconds."""
        return self.at(self.now + seconds, call)

    def run(self, until: float) -> None:
        """Let everything happen that is due before `until`, and then be there."""
        heap, soon = self._heap, self._soon
        while soon or (heap and heap[0][0] <= until):
            if soon:
                self.events += 1
                soon.popleft()()
                continue
            when, _, event = heapq.heappop(heap)
            call = event.call
            if call is not None:
                self.now = when
                self.events += 1
                call()
        self.now = max(self.now, until)


@dataclass
class Clock:
    """A machine's clock: `rate` seconds of its own to one true second. Stopping it takes time away."""

    scheduler: Scheduler
    rate: float = 1.0
    offset: float = 0.0
    stopped_at: float | None = None

    def now(self) -> float:
        """What this clock shows."""
        true = self.scheduler.now if self.stopped_at is None else self.stopped_at
        return self.offset + self.rate * true

    @property
    def spread(self) -> float:
        """How far it is from true time."""
        return abs(self.now() - self.scheduler.now)

    def until(self, when: float) -> float:
        """The true moment at which this clock will show `when`, if it does not stop."""
        return (when - self.offset) / self.rate + _TINY_S

    def reached(self, when: float) -> bool:
        """Whether it shows `when` or later."""
        return self.now() >= when

    def stop(self) -> None:
        """The machine stops, and its clock with it."""
        if self.stopped_at is None:
            self.stopped_at = self.scheduler.now

    def go_on(self) -> None:
        """The clock goes on where it stopped."""
        if self.stopped_at is not None:
            self.offset -= self.rate * (self.scheduler.now - self.stopped_at)
            self.stopped_at = None
