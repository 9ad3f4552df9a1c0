"""One tenant that takes everything it can get, beside one that must not notice: its requests are all answered."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.ledger import Ledger, Writing

# Far above anything that a working limit allows, far below what a starved neighbour would see.
MEDIAN_LIMIT_S = 5.0
FLOOD_BYTES = 48 << 20
LOG_LIMIT_BYTES = 32 << 20


class Latency:
    """Reads a tenant for as long as the block lasts, and keeps how long each answer took and its status."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took_s: list[float] = []
        self.statuses: list[int] = []

    def __enter__(self) -> Latency:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def median_s(self) -> float:
        """Of everything since the start."""
        return statistics.median(self.took_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                status = self._ledger.box.tenant(self._ledger.tenant, "GET", "/rows")[0]
            except OSError:
                status = 0
            self.took_s.append(time.monotonic() - began)
            self.statuses.append(status)
            self._stop.wait(0.02)


@pytest.fixture(scope="module")
def neighbours(box: Box) -> Iterator[tuple[Ledger, Ledger]]:
    """(the quiet one, the noisy one), both up."""
    quiet, noisy = Ledger(box, "quiet"), Ledger(box, "noisy")
    quiet.up()
    noisy.up("--cpus", "0.5")
    yield quiet, noisy
    for ledger in (quiet, noisy):
        box.fleet("down", ledger.tenant)


def trouble(ledger: Ledger, kind: str, **query: int) -> None:
    """Let the noisy one do its worst; that it may not live to answer is the point."""
    words = "&".join(f"{k}={v}" for k, v in query.items())
    url = f"{ledger.box.gateway}/t/{ledger.tenant}/trouble?kind={kind}&{words}"
    try:
        ledger.box.request("POST", url, timeout_s=20)
    except OSError:
        return


@pytest.mark.parametrize("kind", ["forks", "memory", "log"])
def test_a_neighbour_answers_every_request(
    box: Box, neighbours: tuple[Ledger, Ledger], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet, noisy = neighbours
    box.wait_state(noisy.tenant, "running")
    with Latency(quiet) as before:
        time.sleep(2)
    with Latency(quiet) as during, Writing(quiet, 1) as writing:
        trouble(noisy, kind, bytes=FLOOD_BYTES)
        writing.more(3)
    with capsys.disabled():
        print(
            f"\n{kind}: the neighbour's median {before.median_s() * 1000:.0f} ms before, "
            f"{during.median_s() * 1000:.0f} ms during, of {len(during.took_s)} requests"
        )
    assert set(during.statuses) == {200}
    assert during.median_s() < MEDIAN_LIMIT_S
    quiet.check()
    box.wait_state(noisy.tenant, "running", timeout_s=120)
    noisy.write(1)
    noisy.check()


def test_a_flooded_log_stays_bounded(box: Box, neighbours: tuple[Ledger, Ledger]) -> None:
    _, noisy = neighbours
    trouble(noisy, "log", bytes=FLOOD_BYTES)
    container = json.loads(box.docker("inspect", box.container(noisy.tenant)))[0]
    folder = Path(box.docker("info", "-f", "{{.DockerRootDir}}").strip()) / "containers" / container["Id"]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert size < LOG_LIMIT_BYTES
    assert "xxxx" in box.fleet("logs", noisy.tenant, "-n", "3").out


def test_a_tenant_that_is_killed_for_its_memory_says_so(box: Box, neighbours: tuple[Ledger, Ledger]) -> None:
    _, noisy = neighbours
    trouble(noisy, "memory")
    box.wait_state(noisy.tenant, "running", timeout_s=120)
    events = box.fleet("events", noisy.tenant).out
    assert "more memory than its limit" in events
