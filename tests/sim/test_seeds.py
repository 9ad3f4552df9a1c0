"""Seeded runs of the whole protocol, with every rule as it is: nothing that must hold is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = 2000
LONG = int(os.environ.get("TESTS_SIM_SEEDS", "1000000"))
LEAST_EVENTS = 200


def tried(first: int, count: int, *more: str) -> None:
    """Run so many seeds in as many processes as there are cores; what the first failing one says is the failure."""
    cores = os.cpu_count() or 1
    each = -(-count // cores)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sim", str(first + i * each), "--count", str(min(each, count - i * each)),
             "--least", str(LEAST_EVENTS), *more],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for i in range(cores)
    ]  # fmt: skip
    told = [(p.communicate()[0], p.returncode) for p in running]
    for text, code in told:
        print(text[-200:])
        assert code == 0, text


@pytest.mark.timeout(900)
def test_two_thousand_seeds_break_nothing() -> None:
    """Each a fleet of its own with its own faults, and at least two hundred events."""
    tried(1, QUICK)


@pytest.mark.long
@pytest.mark.timeout(7 * 86400)
def test_a_million_seeds_break_nothing() -> None:
    """TESTS_SIM_SEEDS says how many, for those who have less time."""
    tried(1_000_000, LONG)


@pytest.mark.long
@pytest.mark.timeout(7 * 86400)
def test_purges_restores_and_drains_among_faults_break_nothing() -> None:
    """As many; every second one with a controller that leads."""
    tried(1, LONG, "--operations")
