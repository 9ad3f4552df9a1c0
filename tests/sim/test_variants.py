"""Every rule is needed: with any one of them broken, some seed shows it. A variant that survives fails here."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.sim import faults, variants, world
from tests.sim.faults import PAUSE, Fault, Script
from tests.sim.variants import VARIANTS, Variant


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with world.quiet():
        yield


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name.replace(" ", "-"))
def test_a_broken_rule_shows(variant: Variant) -> None:
    """In one of its seeds."""
    for seed in range(1, variant.seeds + 1):
        if variants.caught(variant, variants.run(variant, variants.script(variant, seed))):
            return
    pytest.fail(f"nothing shows in {variant.seeds} seeds that this rule is broken: {variant.name}")


PLOTS = list({v.plot: v for v in VARIANTS if v.plot is not None}.values())


@pytest.mark.parametrize("variant", PLOTS, ids=lambda v: v.plot.__name__.strip("_"))
def test_what_shows_a_broken_rule_breaks_nothing_while_it_holds(variant: Variant) -> None:
    """Otherwise a variant would be caught for nothing."""
    for seed in range(1, 7):
        result = world.run(variants.script(variant, seed))
        assert not [v for v in result.violations if v.kind in variant.shows], f"seed {seed}: {result.violations}"


def _paused(seed: int) -> Script:
    """A machine stops, its clock with it, for longer than others wait."""
    rng = random.Random(f"assumption {seed}")
    who = rng.choice(("n0", "n1"))
    return replace(faults.draw(seed), faults=(Fault(rng.uniform(9.0, 16.0), PAUSE, who, rng.uniform(20.0, 30.0)),))


def _unguarded(seed: int) -> Script:
    """Guard and agent of a machine die, and nobody starts them again for long."""
    at = random.Random(f"assumption {seed}").uniform(9.0, 16.0)
    return replace(faults.draw(seed), faults=tuple(Fault(at, "kill_both", n, 30.0, "long") for n in ("n0", "n1")))


@pytest.mark.parametrize("script", [_paused, _unguarded])
def test_without_an_assumption_one_copy_may_not_be_all_that_runs_but_nothing_is_lost(script: object) -> None:
    """That clocks count pauses, and that a guard is back before its deadline, is what the bounded promise rests on."""
    assert callable(script)
    found = [v for seed in range(1, 31) for v in world.run(script(seed)).violations]
    assert {v.kind for v in found} == {"bounded"}, found
