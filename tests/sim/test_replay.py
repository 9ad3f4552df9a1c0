"""A failure can be looked at: it names its seed, it is as short as was found, and it is the same each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim import faults, variants, world
from tests.sim.__main__ import main
from tests.sim.shrink import shrink, tell

ROOT = Path(__file__).parents[2]
PLANTED = next(v for v in variants.VARIANTS if v.name == "not frozen at the deadline")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with world.quiet():
        yield


def _replayed(arguments: list[str], hashing: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": hashing}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_one_seed_is_the_same_bytes_in_every_process() -> None:
    """Neither the order of a hash nor an address in memory shows."""
    first, second = _replayed(["7"], "1"), _replayed(["7"], "2")
    assert first == second
    assert first.count("\n") > 50


def test_a_planted_defect_prints_its_seed_and_the_shortest_run() -> None:
    """What is printed names the command that shows it again, in fewer faults, and that command does."""
    for seed in range(1, PLANTED.seeds):
        whole = variants.run(PLANTED, variants.script(PLANTED, seed))
        if variants.caught(PLANTED, whole) and len(whole.script.faults) > 2:
            break
    found = shrink(whole, lambda script: variants.run(PLANTED, script))
    text = tell(found, PLANTED.name)
    assert f"seed {seed}: " in text
    assert len(found.kept) < len(whole.script.faults)
    command = re.search(r"python -m tests\.sim (.*)", text)
    assert command is not None
    arguments = [part.strip('"') for part in re.findall(r'"[^"]*"|\S+', command[1])]
    again = _replayed(arguments, "3")
    assert str(whole.violations[0].rule) in again
    assert again == _replayed(arguments, "4")


def test_what_is_printed_ends_where_the_rule_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing after it, and the exit code says so."""
    code = main(["1", "--count", "5", "--variant", PLANTED.name])
    printed = capsys.readouterr().out
    assert code == 1
    assert "VIOLATION" in printed.split("\n\n")[0].splitlines()[-1]


def test_a_seed_draws_its_faults_alone() -> None:
    """What goes wrong does not depend on what was run before."""
    assert faults.draw(11) == faults.draw(11)
    assert faults.draw(11) != faults.draw(12)
