"""`python -m tests.sim SEED [COUNT]`: replay one seed verbosely, or run many and say what they showed."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.sim import world


def main(argv: list[str]) -> int:
    """One seed: its trace. Several: a summary. Answers the exit code."""
    seed, count = int(argv[0]), int(argv[1]) if len(argv) > 1 else 1
    if count == 1:
        result = world.of_seed(seed, verbose=True)
        sys.stdout.write("\n".join([*map(str, result.script.faults), *result.trace, ""]))
        return 1 if result.violations else 0
    began, found, events, acked = time.monotonic(), Counter[str](), 0, 0
    for s in range(seed, seed + count):
        result = world.of_seed(s)
        events, acked = events + result.events, acked + result.acknowledged
        for v in result.violations:
            found[v.rule] += 1
            sys.stdout.write(f"seed {s}: {v}\n")
    took = time.monotonic() - began
    sys.stdout.write(f"{count} seeds, {events} events, {acked} acknowledged, {took:.1f} s: {dict(found)}\n")
    return 1 if found else 0


if __name__ == "__main__":
    with world.quiet():
        code = main(sys.argv[1:])
    sys.exit(code)
