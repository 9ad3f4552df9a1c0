"""From a run that fails to the shortest one found that fails the same way, and what is printed of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.sim.faults import Script
from tests.sim.world import Result

MOST_RUNS = 60


@dataclass(frozen=True)
class Shrunk:
    """The shortest run found: which of its seed's faults it kept, and how it ended."""

    kept: tuple[int, ...]
    result: Result


def shrink(whole: Result, again: Callable[[Script], Result], most_runs: int = MOST_RUNS) -> Shrunk:
    """Leave faults out, halves first, then single ones, as long as the same rule is broken."""
    rule = whole.violations[0].rule
    faults = whole.script.faults
    kept, best, runs = tuple(range(len(faults))), whole, 0
    size = max(1, len(kept) // 2)
    while runs < most_runs:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            found = again(replace(whole.script, faults=tuple(faults[i] for i in fewer)))
            runs += 1
            if any(v.rule == rule for v in found.violations):
                kept, best = fewer, found
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    return Shrunk(kept, best)


def tell(found: Shrunk, variant: str = "", *, operations: bool = False) -> str:
    """What to print: the seed, what broke, how to see it again, and the trace up to there."""
    result = found.result
    violation = result.violations[0]
    kept = ",".join(map(str, found.kept)) or "none"
    broken = f' --variant "{variant}"' if variant else ""
    asked = " --operations" if operations else ""
    command = f"python -m tests.sim {result.script.seed} --keep {kept}{broken}{asked}"
    upto = next((i for i, line in enumerate(result.trace) if "VIOLATION" in line), len(result.trace) - 1)
    return "\n".join(
        [
            f"seed {result.script.seed}: {violation}",
            f"again: {command}",
            *map(str, result.script.faults),
            *result.trace[: upto + 1],
        ]
    )
