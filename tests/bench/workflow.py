"""Steps a second of the workflow library, beside its peers on SQLite and its floor, in alternation.

Sequential workflows of ten trivial steps, one and 64 at a time, each program in a process and a folder of its own
(`tests/bench/peers`). Durability of each: ours `full` and `normal` are WAL with that synchronous level; DBOS'
default is a rollback journal with FULL, `wal` its best; Temporal's development server has one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figure, quantile
from tests.testbed.private import host_network
from tests.testbed.stores import cache

_ROOT = Path(__file__).parents[2]
_PEERS = Path(__file__).with_name("peers")
_LOCK = _ROOT / "deploy/locks/peers.txt"
ROUNDS, SECONDS = 5, 4.0
AT_ONCE = (1, 64)


@dataclass(frozen=True)
class Program:
    """One way to run them; `peer` ones run in the peers' own environment."""

    name: str
    file: str
    durability: str
    peer: bool


PROGRAMS = (
    Program("ours, FULL", "ours_steps", "full", peer=False),
    Program("ours, NORMAL", "ours_steps", "normal", peer=False),
    Program("apsw, FULL", "apsw_rows", "full", peer=False),
    Program("apsw, NORMAL", "apsw_rows", "normal", peer=False),
    Program("DBOS, default", "dbos_steps", "default", peer=True),
    Program("DBOS, WAL and NORMAL", "dbos_steps", "wal", peer=True),
    Program("Temporal", "temporal_steps", "default", peer=True),
)


def run(*, quick: bool) -> Iterator[Figure]:
    """Every program in turn, round after round."""
    python = peers_python()
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _ in range(1 if quick else ROUNDS):
        for at_once in AT_ONCE:
            for program in PROGRAMS:
                rates[program.name, at_once].append(_measured(program, python, at_once, 1.0 if quick else SECONDS))
    median = {key: quantile(values, 0.5) for key, values in rates.items()}
    for (name, at_once), values in rates.items():
        yield Figure(f"{name}, {at_once} at a time", median[name, at_once], "steps/s", raw={"runs": values})
    for at_once in AT_ONCE:
        yield _ratio(median, at_once, "ours, FULL", "DBOS, default", 20)
        yield _ratio(median, at_once, "ours, NORMAL", "DBOS, WAL and NORMAL", 5 if at_once > 1 else None)
        yield _ratio(median, at_once, "ours, FULL", "Temporal", None)
        for level in ("FULL", "NORMAL"):
            yield _ratio(median, at_once, f"ours, {level}", f"apsw, {level}", 0.15 if at_once > 1 else None)


def _ratio(median: dict[tuple[str, int], float], at_once: int, ours: str, other: str, bound: float | None) -> Figure:
    value = median[ours, at_once] / median[other, at_once]
    return Figure(f"{ours} / {other}, {at_once} at a time", value, "×", bound, "at least")


def _measured(program: Program, python: Path, at_once: int, seconds: float) -> float:
    """Steps a second. Raises AssertionError with the program's own words."""
    folder = Path(tempfile.mkdtemp(prefix="bench-steps-", dir="/var/tmp"))
    if program.peer:
        command = [str(python), str(_PEERS / f"{program.file}.py")]
    else:
        command = [sys.executable, "-m", f"tests.bench.peers.{program.file}"]
    try:
        done = subprocess.run(
            [*command, str(folder), program.durability, str(at_once), str(seconds)],
            cwd=_ROOT, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{program.name}: {done.stdout}{done.stderr}"
        result = json.loads(done.stdout.strip().splitlines()[-1])
        assert result["steps"], f"{program.name}, {at_once} at a time: none of its workflows ended"
        return float(result["steps"] / result["seconds"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peers_python() -> Path:
    """The interpreter of the peers' environment; it is made, from its lock file, when it is not there."""
    folder = cache() / "peers"
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_bytes() != _LOCK.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "-q", "install", "--require-hashes", "--only-binary=:all:", "-r", str(_LOCK)]
        subprocess.run(host_network(pip), check=True)
        stamp.write_bytes(_LOCK.read_bytes())
    return python
