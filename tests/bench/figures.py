"""What a measurement says: a figure, its bound and the raw numbers that it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One figure. `bound` None means that it is reported and not judged; `raw` is anything JSON can hold."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    kind: Literal["at most", "at least"] = "at most"
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool | None:
        """Whether the bound is kept; None without one."""
        if self.bound is None:
            return None
        return self.value <= self.bound if self.kind == "at most" else self.value >= self.bound

    def line(self) -> str:
        """For a terminal."""
        verdict = {None: "", True: "  kept", False: "  MISSED"}[self.kept]
        bound = f"  ({self.kind} {self.bound:g}){verdict}" if self.bound is not None else ""
        raw = "  ".join(f"{key}={_short(value)}" for key, value in self.raw.items())
        return f"{self.name:<44} {self.value:>10.4g} {self.unit:<10}{bound}" + (f"\n    {raw}" if raw else "")

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return {**asdict(self), "kept": self.kept}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that this share of them does not exceed: 0.5 is the median, 0.99 p99."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple) and len(value) > 8:
        return f"[{len(value)} values]"
    return str(value)
