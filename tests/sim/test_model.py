"""The protocol as a model: its rules hold in every state that there is, and each rule broken is found by the checker.

The bounds are small here; `long` has larger ones, and what must come about in the end.
"""

from __future__ import annotations

import re

import pytest

from tests.sim.model import tlc
from tests.sim.model.holds import LONG, SHORT, Hold
from tests.sim.model.variants import VARIANTS, Variant

pytestmark = pytest.mark.timeout(4000)  # a search has a limit of its own


@pytest.fixture(scope="module", autouse=True)
def _checker() -> None:
    try:
        tlc.command()
    except tlc.Missing as e:
        pytest.skip(str(e))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_a_broken_rule_is_found(variant: Variant) -> None:
    breaks: tuple[tuple[str, ...], tuple[str, ...]] = ((), variant.breaks) if variant.liveness else (variant.breaks, ())
    outcome = tlc.check(variant.module, variant.sets, invariants=breaks[0], properties=breaks[1])
    assert outcome.violated is not None, f"{variant.name} survives: the checker does not see that {variant.why}"


@pytest.mark.parametrize("hold", SHORT, ids=lambda h: h.name)
def test_the_rules_as_built_hold(hold: Hold) -> None:
    _holds(hold)


@pytest.mark.long
@pytest.mark.parametrize("hold", LONG, ids=lambda h: h.name)
def test_the_rules_as_built_hold_in_larger_bounds(hold: Hold) -> None:
    _holds(hold)


def _holds(hold: Hold) -> None:
    outcome = tlc.check(
        hold.module,
        hold.sets,
        invariants=hold.invariants,
        properties=hold.properties,
        thorough=hold.thorough,
        limit_s=3600.0 if hold.thorough else 280.0,
    )
    assert outcome.violated is None, f"{outcome.violated} does not hold:\n" + "\n".join(outcome.trace)
    assert outcome.distinct >= hold.at_least, "the model can do less than it could: a guard too many?"


def test_every_rule_has_a_broken_variant() -> None:
    for module in ("Lease", "Ownership"):
        rules = (tlc.HERE / f"{module}.tla").read_text().split("CONSTANTS")[2].split("VARIABLES")[0]
        names = set(re.findall(r"^  ([A-Z]+),? +\\\* ", rules, re.MULTILINE))
        broken = {name for v in VARIANTS if v.module == module for name in v.sets}
        assert names and names <= broken, f"{module}: nothing breaks {sorted(names - broken)}"
