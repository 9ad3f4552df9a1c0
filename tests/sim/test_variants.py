"""Every rule is needed: with any one of them broken, some seed shows it. A variant that survives fails here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim import variants, world
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
