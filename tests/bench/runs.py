"""Runs of the workflow library: how long a step takes, and what many runs that wait, and a long history, cost.

Each figure comes from programs in processes of their own (`tests/bench/programs`), repeated in turns; medians.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from tests.bench.figures import Figure, quantile

_ROOT = Path(__file__).parents[2]
ROUNDS, SECONDS = 5, 4.0
LEVELS = ("full", "normal")
AT_ONCE = (1, 64)
PARKED = 7_500
SLEEPING = 100_000
HISTORY = 10_000
_MIB = 1 << 20


def run(*, quick: bool) -> Iterator[Figure]:
    """All of them, with fewer runs and rounds when it is quick."""
    rounds = 1 if quick else ROUNDS
    yield from _latency(rounds, 1.0 if quick else SECONDS)
    yield from _parked(rounds, PARKED // 10 if quick else PARKED)
    yield from _sleeping(rounds, SLEEPING // 20 if quick else SLEEPING)
    yield from _replay(rounds, HISTORY // 5 if quick else HISTORY)


def _latency(rounds: int, seconds: float) -> Iterator[Figure]:
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    disk: list[float] = []
    for _ in range(rounds):
        for at_once in AT_ONCE:
            for level in LEVELS:
                with _folder() as name:
                    words = (name, level, str(at_once), str(seconds))
                    found[level, at_once].append(_told("latency", *words))
                    disk.append(_bytes_a_run(Path(name, "log.db")))
    for (level, at_once), each in found.items():
        for share in (50, 99):
            values = [one[f"step_p{share}_ms"] for one in each]
            whole = [one[f"run_p{share}_ms"] for one in each]
            name = f"one step, {level.upper()}, {at_once} at a time, p{share}"
            yield Figure(name, quantile(values, 0.5), "ms", raw={"runs": values, "of_ten_steps_whole": whole})
    yield Figure("disk of a run of ten steps", quantile(disk, 0.5), "bytes", raw={"runs": [round(d) for d in disk]})


def _parked(rounds: int, count: int) -> Iterator[Figure]:
    found, disk = [], []
    for _ in range(rounds):
        with _folder() as name:
            found.append(_told("parked", name, str(count)))
            disk.append(_bytes_a_run(Path(name, "workflow.db")))
    dirty, rss = (
        [(one["waiting"][key] - one["empty"][key]) / _MIB for one in found] for key in ("private_dirty", "rss")
    )
    raw = {
        "private_dirty_mib": [round(one["waiting"]["private_dirty"] / _MIB, 1) for one in found],
        "empty_private_dirty_mib": [round(one["empty"]["private_dirty"] / _MIB, 1) for one in found],
        "rss_delta_mib": [round(each, 1) for each in rss],
        "start_s": [round(one["start_s"], 2) for one in found],
    }
    yield Figure(f"{count} parked runs: memory more than with none", quantile(dirty, 0.5), "MiB", raw=raw)
    done = [one["done_s"] for one in found]
    raw = {
        "runs": [round(each, 2) for each in done],
        "signals_durable_s": [round(one["told_s"], 2) for one in found],
        "done_private_dirty_mib": [round(one["done"]["private_dirty"] / _MIB, 1) for one in found],
    }
    yield Figure(f"{count} signalled at once on one core: all done", quantile(done, 0.5), "s", raw=raw)
    yield Figure("disk of a run with a signal, ended", quantile(disk, 0.5), "bytes", raw={"runs": disk})


def _sleeping(rounds: int, count: int) -> Iterator[Figure]:
    with _folder() as name:
        log = Path(name, "workflow.db")
        filled = _told("sleeping", "fill", name, str(count))
        disk = _bytes_a_run(log)
        found = []
        for turn in range(max(rounds, 3)):
            _forget(log)
            found.append(_told("sleeping", "open", name, str(count + turn), now=time.time))
    ready = [one["ready_s"] * 1e3 for one in found]
    keys = ("import_s", "open_s", "first_start_s")
    raw = {f"{key.removesuffix('_s')}_ms": [round(one[key] * 1e3, 1) for one in found] for key in keys}
    yield Figure(f"{count} sleeping, cold start: exec to ready", quantile(ready, 0.5), "ms", raw=raw)
    yield Figure(f"{count} sleeping: open() alone", quantile([one["open_s"] * 1e3 for one in found], 0.5), "ms")
    dirty = [one["after"]["private_dirty"] / _MIB for one in found]
    raw = {
        "before_open_mib": [round(one["before"]["private_dirty"] / _MIB, 1) for one in found],
        "rss_mib": [round(one["after"]["rss"] / _MIB, 1) for one in found],
        "filled_in_s": round(filled["start_s"], 1),
    }
    yield Figure(f"{count} sleeping: private dirty once ready", quantile(dirty, 0.5), "MiB", raw=raw)
    yield Figure("disk of a run that sleeps", disk, "bytes")


def _replay(rounds: int, events: int) -> Iterator[Figure]:
    pure, read, load = [], [], []
    for _ in range(rounds):
        with _folder() as name:
            _told("replaying", "fill", name, str(events))
            told = _told("replaying", "pure", name, str(events))
            pure += told["seconds"]
            read += told["read_seconds"]
            load += _told("replaying", "load", name, str(events))["seconds"]
    raw = {"seconds": [round(each, 4) for each in pure], "read_from_file_s": round(quantile(read, 0.5), 4)}
    yield Figure(f"replay of {events} events, the code alone", events / quantile(pure, 0.5), "events/s", raw=raw)
    raw = {"seconds": [round(each, 4) for each in load]}
    name = f"the same from the file, signal to end of {events} events"
    yield Figure(name, events / quantile(load, 0.5), "events/s", raw=raw)


def _told(program: str, *words: str, now: Callable[[], float] | None = None) -> dict[str, Any]:
    """What a program measured; `now` adds the time at which it is started. Raises AssertionError with its words."""
    command = [sys.executable, "-m", f"tests.bench.programs.{program}", *words]
    if now is not None:
        command.append(repr(now()))
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, f"{program} {words}: {done.stdout}{done.stderr}"
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-runs-", dir="/var/tmp")


def _bytes_a_run(log: Path) -> float:
    """How much of the file each of its runs is, once all is checkpointed."""
    db = apsw.Connection(str(log))
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        count: int = db.execute("SELECT count(*) FROM workflows").get
    finally:
        db.close()
    return log.stat().st_size / count


def _forget(log: Path) -> None:
    """The kernel has nothing of the files in memory any more."""
    for path in log.parent.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
