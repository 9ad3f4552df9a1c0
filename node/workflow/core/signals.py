"""The signals of one run that came and nobody has waited for yet, and the waits that none has come for."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple


class Signal(NamedTuple):
    """One that came; `number` counts those of its run."""

    number: int
    name: str
    payload: Any


class Signals:
    """By name, in the order they came; a wait gets the oldest."""

    def __init__(self) -> None:
        self._came = 0
        self._values: dict[str, deque[Signal]] = {}
        self._waits: dict[str, deque[int]] = {}

    def put(self, name: str, payload: Any) -> None:
        """A signal has come."""
        self._came += 1
        self._values.setdefault(name, deque()).append(Signal(self._came, name, payload))

    def put_back(self, signal: Signal) -> None:
        """A wait got it, and was cancelled before the code could see it: it is where it was among those that came."""
        insort(self._values[signal.name], signal)

    def wait(self, name: str, step: int) -> None:
        """This step waits for one."""
        self._waits.setdefault(name, deque()).append(step)

    def stop_waiting(self, name: str, step: int) -> None:
        """It does no longer."""
        self._waits[name].remove(step)

    def matched(self, name: str) -> Iterator[tuple[int, Signal]]:
        """Steps that get a signal now, and which; both are taken out."""
        values, waits = self._values.get(name), self._waits.get(name)
        while values and waits:
            yield waits.popleft(), values.popleft()

    def kept(self) -> list[tuple[str, Any]]:
        """Name and payload of those that nobody has waited for."""
        return [(name, signal.payload) for name, signals in self._values.items() for signal in signals]
