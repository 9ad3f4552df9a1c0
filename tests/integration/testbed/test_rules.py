"""The rule of the suite itself: what cannot run here is a skip with its reason, in CI a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITE = """
import pytest

def test_that_skips():
    pytest.skip("no engine here")

@pytest.fixture
def absent():
    pytest.skip("no store here")

def test_that_needs_what_skips(absent):
    pass

@pytest.mark.skip(reason="not on this machine")
def test_that_is_marked():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_known_to_fail():
    assert False

def test_that_runs():
    pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "test_suite.py"
    path.write_text(SUITE)
    return path


def run(suite: Path, ci: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-ra", "--rootdir", suite.parent, suite],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_on_a_users_machine_a_skip_says_its_reason(suite: Path) -> None:
    done = run(suite, "")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout
    for reason in ("no engine here", "no store here", "not on this machine"):
        assert reason in done.stdout


def test_in_ci_a_skip_is_a_failure_with_its_reason(suite: Path) -> None:
    done = run(suite, "true")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in done.stdout
    for reason in ("no engine here", "no store here", "not on this machine"):
        assert reason in done.stdout
