"""The signals of one run that came and nobody has waited for yet, and the waits that none has come for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any


class Signals:
    """By name, in the order they came; a wait gets the oldest."""

    def __init__(self) -> None:
        self._values: dict[str, deque[Any]] = {}
        self._waits: dict[str, deque[int]] = {}

    def put(self, name: str, payload: Any) -> None:
        """A signal has come."""
        self._values.setdefault(name, deque()).append(payload)

    def wait(self, name: str, step: int) -> None:
        """This step waits for one."""
        self._waits.setdefault(name, deque()).append(step)

    def stop_waiting(self, name: str, step: int) -> None:
        """It does no longer."""
        self._waits[name].remove(step)

    def matched(self, name: str) -> Iterator[tuple[int, Any]]:
        """Steps that get a signal now, and which; both are taken out."""
        values, waits = self._values.get(name), self._waits.get(name)
        while values and waits:
            yield waits.popleft(), values.popleft()

    def kept(self) -> list[tuple[str, Any]]:
        """Name and payload of those that nobody has waited for."""
        return [(name, value) for name, values in self._values.items() for value in values]
