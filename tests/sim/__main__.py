"""Replay a seed verbosely: `python -m tests.sim SEED [--keep 0,2] [--variant NAME]`; `--count` tries many."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tests.sim import faults, variants, world
from tests.sim.faults import Script
from tests.sim.shrink import shrink, tell
from tests.sim.variants import Variant
from tests.sim.world import Result


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--count", type=int, default=1, help="try so many seeds and say what they showed")
    parser.add_argument("--least", type=int, default=0, help="a run of fewer events is a failure")
    parser.add_argument("--keep", help="numbers of the seed's faults to keep, or none")
    parser.add_argument("--operations", action="store_true", help="operators purge, restore and drain meanwhile")
    parser.add_argument("--variant", help="the rule to break, by its name")
    return parser.parse_args(argv)


def _script(seed: int, variant: Variant | None, keep: str | None, *, operations: bool) -> Script:
    script = faults.draw(seed, operations=operations) if variant is None else variants.script(variant, seed)
    if keep is None:
        return script
    kept = [] if keep == "none" else [int(i) for i in keep.split(",")]
    return replace(script, faults=tuple(script.faults[i] for i in kept))


def _run(script: Script, variant: Variant | None, *, verbose: bool = False) -> Result:
    if variant is None:
        return world.run(script, verbose=verbose)
    return variants.run(variant, script, verbose=verbose)


def main(argv: Sequence[str] | None = None) -> int:
    """Answers the exit code: 1 if anything that must hold was broken."""
    asked = _arguments(argv)
    variant = next((v for v in variants.VARIANTS if v.name == asked.variant), None)
    if asked.variant and variant is None:
        raise SystemExit(f"no such variant: {asked.variant}; there are {', '.join(v.name for v in variants.VARIANTS)}")
    if asked.count == 1:
        result = _run(_script(asked.seed, variant, asked.keep, operations=asked.operations), variant, verbose=True)
        sys.stdout.write("\n".join([*map(str, result.script.faults), *result.trace, ""]))
        return 1 if result.violations else 0
    return _many(asked.seed, asked.count, variant, asked.least, operations=asked.operations)


def _many(first: int, count: int, variant: Variant | None, least: int, *, operations: bool) -> int:
    began, found, events, acked = time.process_time(), Counter[str](), 0, 0
    for seed in range(first, first + count):
        result = _run(_script(seed, variant, None, operations=operations), variant)
        events, acked = events + result.events, acked + result.acknowledged
        if result.events < least:
            found["too few events"] += 1
        if result.violations:
            found[result.violations[0].rule] += 1
            shortest = shrink(result, lambda script: _run(script, variant))
            told = tell(shortest, variant.name if variant else "", operations=operations)
            sys.stdout.write(told + "\n\n")
            sys.stdout.flush()
    took = time.process_time() - began
    sys.stdout.write(f"{count} seeds, {events} events, {acked} acknowledged, {took:.1f} s of CPU: {dict(found)}\n")
    return 1 if found else 0


if __name__ == "__main__":
    with world.quiet():
        code = main()
    sys.exit(code)
