"""How much the worker takes on at once: what is more is told to come back, so that what was taken is done in time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

from node.worker.problem import Problem

Load: TypeAlias = Literal["read", "write", "wait", "stream", "probe"]

# Requests at a time. A probe (health, metrics) is never refused: it is what tells that the others are.
LIMITS: Final[Mapping[Load, int]] = {"read": 64, "write": 512, "wait": 2_000, "stream": 256}
BODIES_BYTES: Final = 16 << 20  # of all requests that are being read or answered
BACKLOG: Final = 10_000  # activities that wait for a free place; then no run is started
RETRY_AFTER: Final = (("retry-after", "1"),)


class Pressure:
    """What is under way. `backlog` tells how many activities wait for a free place."""

    def __init__(
        self,
        backlog: Callable[[], int],
        limits: Mapping[Load, int] = LIMITS,
        bodies_bytes: int = BODIES_BYTES,
        max_backlog: int = BACKLOG,
    ) -> None:
        self._backlog = backlog
        self._limits = limits
        self._bodies_bytes = bodies_bytes
        self._max_backlog = max_backlog
        self._under_way: Counter[Load] = Counter()
        self._bytes = 0
        self.refused: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, load: Load, body_bytes: int) -> Iterator[None]:
        """Around one request. Raises Problem 429 when there are too many."""
        limit = self._limits.get(load)
        if limit is not None and self._under_way[load] >= limit:
            raise self._refusal(load, f"{limit} such requests are under way")
        if self._bytes + body_bytes > self._bodies_bytes and self._bytes:
            raise self._refusal("bodies", "the requests under way have too much in their bodies")
        self._under_way[load] += 1
        self._bytes += body_bytes
        try:
            yield
        finally:
            self._under_way[load] -= 1
            self._bytes -= body_bytes

    def check_backlog(self) -> None:
        """Before a run is started. Raises Problem 429 when too many activities wait."""
        if self._backlog() >= self._max_backlog:
            raise self._refusal("backlog", f"{self._max_backlog} activities wait for a free place")

    def _refusal(self, reason: str, detail: str) -> Problem:
        self.refused[reason] += 1
        return Problem(
            429, "too-many-requests", f"{detail}; try again in a second", retryable=True, headers=RETRY_AFTER
        )
