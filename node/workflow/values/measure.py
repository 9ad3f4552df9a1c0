"""How long something takes, or how much of it there is: counted by size."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import field
from typing import Final

from node.workflow.values.dataclass import dataclass

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(slots=True)
class Histogram:
    """Observations by size. `counts` has one more than `bounds`: what is larger than all of them."""

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """One observation; it counts for the first bound that it does not exceed."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Histogram:
        """One that no longer changes."""
        return Histogram(self.bounds, list(self.counts), self.sum)
