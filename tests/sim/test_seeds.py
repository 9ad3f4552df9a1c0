"""Seeded runs of the whole protocol, with every rule as it is: nothing that must hold is broken."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.sim import faults, world

QUICK = int(os.environ.get("TESTS_SIM_SEEDS", "300"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with world.quiet():
        yield


@pytest.mark.timeout(900)
def test_no_seed_breaks_an_invariant() -> None:
    """Many fleets, each with its own faults, of at least two hundred events."""
    for seed in range(1, QUICK + 1):
        result = world.of_seed(seed)
        assert not result.violations, f"seed {seed}: {result.violations}"
        assert result.events >= 200


def test_one_seed_is_one_run() -> None:
    """The same seed gives the same bytes."""
    for seed in (3, 4):
        assert world.run(faults.draw(seed), verbose=True).trace == world.run(faults.draw(seed), verbose=True).trace
