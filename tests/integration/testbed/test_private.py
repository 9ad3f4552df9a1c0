"""The tests' own namespaces: nothing gets out of them, nothing outlives them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.private import VARIABLE
from tests.testbed.process import wait_until

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")


def started(script: str) -> subprocess.Popen[str]:
    outside = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.testbed.private", "sh", "-c", script],
        cwd=ROOT,
        env=outside,
        stdout=subprocess.PIPE,
        text=True,
    )


def running(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """The argument of a sleep that only this test started."""
    mark = f"3600.{secrets.randbelow(10**9):09}"
    yield mark
    for pid in running(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_commands_status_is_answered() -> None:
    assert started("exit 7").wait(60) == 7
    assert started("kill -9 $$").wait(60) == 137


def test_a_server_in_there_is_not_reached_from_here_nor_the_other_way() -> None:
    out, _ = started("ip -o addr show; cat /proc/self/net/route").communicate(timeout=30)
    assert "127.0.0.1" in out
    assert "eth0" not in out
    assert len(out.split("Iface")[1].splitlines()) == 1


def test_what_a_command_leaves_running_ends_with_it(mark: str) -> None:
    assert started(f"setsid sleep {mark} >/dev/null 2>&1 & sleep 0.2").wait(60) == 0
    wait_until(lambda: not running(mark), "its end", timeout_s=60)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_ended_from_outside_leaves_nothing(mark: str, number: signal.Signals) -> None:
    run = started(f"setsid sleep {mark} >/dev/null 2>&1 & echo up; wait")
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    wait_until(lambda: bool(running(mark)), "its start", timeout_s=60)
    run.send_signal(number)
    run.wait(60)
    wait_until(lambda: not running(mark), "its end", timeout_s=60)


def test_what_was_left_frozen_ends_too(mark: str) -> None:
    freezer = Path("/sys/fs/cgroup/freezer")
    group = (freezer if freezer.is_dir() else Path("/sys/fs/cgroup")) / f"fleet-tests-{mark}"
    state, frozen = ("freezer.state", "FROZEN") if freezer.is_dir() else ("cgroup.freeze", "1")
    group.mkdir()
    script = f"setsid sleep {mark} >/dev/null 2>&1 & echo $! >{group}/cgroup.procs; echo {frozen} >{group}/{state}"
    try:
        assert started(script).wait(60) == 0
        wait_until(lambda: not running(mark), "its end", timeout_s=60)
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "an empty group", timeout_s=60)
        group.rmdir()
