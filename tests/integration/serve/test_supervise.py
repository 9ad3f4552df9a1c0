"""The supervisor with real processes: order, death of each part and of itself, refusal."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import lock
from tests.testbed.process import NotReady, Process, wait_until

HERE = Path(__file__).parent


class Supervised:
    """A supervisor of two stand-ins: `keeper` lives on, `worker` is replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = self.another()
        self.others: list[Process] = []

    def another(self, *arguments: str) -> Process:
        return Process(
            [sys.executable, HERE / "supervisor.py", self.folder, *arguments],
            log=self.folder / "log",
            environment={"PYTHONPATH": str(HERE.parents[2])},
            cwd=self.folder,
        )

    def pid(self, name: str) -> int | None:
        return lock.holder(self.folder / f"{name}.service.lock")

    def start(self, process: Process | None = None) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        (process or self.process).start(ready.exists)

    def said(self) -> list[str]:
        path = self.folder / "said"
        return path.read_text().split() if path.exists() else []

    def end(self) -> None:
        self.process.kill()
        for process in self.others:
            process.kill()
        for name in ("keeper", "worker"):
            if pid := self.pid(name):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    one = Supervised(tmp_path)
    yield one
    one.end()


def test_they_start_in_order_and_end_in_reverse(supervised: Supervised) -> None:
    supervised.start()
    assert supervised.said() == ["keeper-up", "worker-up"]
    supervised.process.stop()
    assert supervised.said() == ["keeper-up", "worker-up", "worker-down", "keeper-down"]
    assert supervised.pid("keeper") is None
    assert supervised.pid("worker") is None


@pytest.mark.parametrize("name", ["keeper", "worker"])
def test_a_killed_part_is_started_again(supervised: Supervised, name: str) -> None:
    supervised.start()
    dead = supervised.pid(name)
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    wait_until(lambda: supervised.pid(name) not in (None, dead), "another one")
    assert supervised.process.alive


def test_after_a_killed_supervisor_the_next_takes_over_or_replaces(supervised: Supervised) -> None:
    supervised.start()
    keeper, worker = supervised.pid("keeper"), supervised.pid("worker")
    supervised.process.kill()
    assert supervised.pid("keeper") == keeper
    assert supervised.pid("worker") == worker
    supervised.start()
    assert supervised.pid("keeper") == keeper
    assert supervised.pid("worker") not in (None, worker)
    supervised.process.stop()
    assert supervised.pid("keeper") is None


def test_a_part_that_was_taken_over_is_started_again_too(supervised: Supervised) -> None:
    supervised.start()
    supervised.process.kill()
    supervised.start()
    keeper = supervised.pid("keeper")
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: supervised.pid("keeper") not in (None, keeper), "another one")


def test_a_reload_goes_to_those_that_reload(supervised: Supervised) -> None:
    supervised.start()
    supervised.process.signal(signal.SIGHUP)
    wait_until(lambda: "keeper-reload" in supervised.said(), "the reload")
    assert "worker-reload" not in supervised.said()
    assert supervised.process.alive


def test_a_part_that_refuses_ends_the_whole(supervised: Supervised) -> None:
    refusing = supervised.another("refuse")
    supervised.others.append(refusing)
    with pytest.raises(NotReady, match="refused to start"):
        supervised.start(refusing)
    assert supervised.said() == ["keeper-up", "keeper-down"]


def test_a_part_that_never_gets_ready_ends_the_whole(supervised: Supervised) -> None:
    mute = supervised.another("mute")
    supervised.others.append(mute)
    with pytest.raises(NotReady, match="not ready"):
        supervised.start(mute)
    assert supervised.pid("keeper") is None


def test_a_part_that_does_not_end_is_killed(supervised: Supervised) -> None:
    stubborn = supervised.another("stubborn")
    supervised.others.append(stubborn)
    supervised.start(stubborn)
    worker = supervised.pid("worker")
    assert worker is not None
    stubborn.stop()
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "its end", timeout_s=60)


def test_an_interrupt_while_starting_ends_what_was_started(supervised: Supervised) -> None:
    mute = supervised.another("mute")
    supervised.others.append(mute)
    mute.start(lambda: supervised.said() == ["keeper-up"])
    time.sleep(0.2)
    mute.stop()
    assert supervised.pid("keeper") is None
