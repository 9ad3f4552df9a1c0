"""A server that is killed again and again, and what it leaves behind.

Run as a program this is what forks the lives: it has everything imported and no threads, so a life begins in
milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from node.workflow import Context, Engine, Retry, activity, activity_info, workflow
from node.workflow.errors import WorkflowError
from node.workflow.log.sqlite import connect
from tests.integration.workflow.effects import effect
from tests.integration.workflow.generated import Grower, tree
from tests.integration.workflow.writes import Counter, Fault, FaultyDisk

RUNS = 24
LONGEST_LIFE_S = 60.0
TREES = ("tree", "chancy")  # the generated mix, the second with activities that draw
REFUSED = 3  # the exit status of a life whose disk did not let it serve


@activity
async def add(a: int, b: int) -> int:
    effect(a, b)
    await asyncio.sleep(0.001)
    return a + b


@activity
def multiply(a: int, b: int) -> int:
    effect(a, b)
    return a * b


@activity(retry=Retry(max_attempts=10, initial_interval_s=0.002, max_interval_s=0.01))
async def moody(n: int) -> int:
    effect(n)
    if activity_info().attempt < 3:
        raise ConnectionError("not today")
    return n + 1


@activity
async def dice(previous: int) -> int:
    """Another result each time: whoever acts on one must act on the one that is recorded."""
    effect(previous)
    return random.getrandbits(32)


@workflow
async def row(ctx: Context, n: int) -> int:
    for i in range(20):
        n = await ctx.run(add, n, i)
        ctx.set_state(i)
    return n


@workflow
async def fan(ctx: Context, n: int) -> int:
    async def branch(i: int) -> int:
        return await ctx.run(add, await ctx.run(multiply, n, i), 1)

    return sum(await ctx.gather(*(branch(i) for i in range(8)), limit=3))


@workflow
async def waits(ctx: Context, n: int) -> int:
    for _ in range(5):
        n = await ctx.run(moody, n)
        await ctx.sleep(0.01)
    return n + int(await ctx.wait_signal("more"))


@workflow
async def chain(ctx: Context, n: int) -> list[int]:
    drawn = [n]
    for _ in range(12):
        drawn.append(await ctx.run(dice, drawn[-1]))
    return drawn


async def serve(path: Path, names: list[str], runs: int, seed: int, bucket: Path | None) -> None:
    """Start every run (again), send every signal (again), and wait for all the ends."""
    options: dict[str, Any] = {"checkpoint": True}
    if bucket is not None:
        options = {"durable": lambda: asyncio.to_thread(upload, path, bucket), "synchronous": "normal"}
    engine = Engine(path, [row, fan, waits, chain, tree], **options)
    await engine.open()
    await asyncio.gather(*(_drive(engine, names[n % len(names)], n, seed) for n in range(runs)))
    await engine.close()


async def _drive(engine: Engine, name: str, n: int, seed: int) -> None:
    run_id = f"{name}-{n}"
    given: Any = n
    if name in TREES:
        given = {"tree": Grower(random.Random(f"{seed} {n}"), chancy=name == "chancy").tree(), "before": n}
    await engine.start("tree" if name in TREES else name, given, run_id)
    if name == "waits" and not engine.get(run_id).closed:
        await engine.signal(run_id, "more", 100, signal_id="only")
    await engine.result(run_id)


def upload(path: Path, bucket: Path) -> None:
    """Copy the file as it is committed now, and put the copy in place of the last one in one step."""
    part = bucket.with_suffix(".part")
    part.unlink(missing_ok=True)
    source, target = connect(path), apsw.Connection(str(part))
    with target.backup("main", source, "main") as backup:
        backup.step()
    source.close()
    target.close()
    part.replace(bucket)


def fork_lives() -> None:
    """Read one life a line, fork it, kill it when its time is up, and answer with how it ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        life = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            os.environ["EFFECTS"], os.environ["GENERATION"] = life["effects"], str(life["generation"])
            bucket = Path(life["bucket"]) if life["bucket"] else None
            counter = Counter(life["write"], life["fault"])
            disk = FaultyDisk(counter) if life["fault"] else None
            try:
                asyncio.run(serve(Path(life["path"]), life["names"], life["runs"], life["seed"], bucket))
            except (apsw.Error, WorkflowError):
                traceback.print_exc()
                os._exit(REFUSED if disk else 1)
            Path(life["path"]).with_name("writes").write_text(str(counter.seen))
            os._exit(0)
        signal.sigtimedwait({signal.SIGCHLD}, life["seconds"])
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        signal.sigtimedwait({signal.SIGCHLD}, 0)  # of the kill; the next life must not see it
        print(status, flush=True)


@dataclass(frozen=True)
class Effect:
    """One time that an activity began."""

    generation: int
    key: str
    values: list[Any]


class Forks:
    """The process that forks the lives of any number of servers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.workflow.mortal"],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def life(self, life: dict[str, Any]) -> int:
        """Fork one and wait for its end; answers its status as `waitpid` tells it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(life) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """No more lives."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LONGEST_LIFE_S)


class Server:
    """The folder of one server over all its lives."""

    def __init__(
        self, folder: Path, names: list[str], forks: Forks, *, uploads: bool = False, runs: int = RUNS, seed: int = 0
    ) -> None:
        folder.mkdir()
        self.seed = seed
        self.runs = runs
        self.path = folder / "workflow.db"
        self.effects_path = folder / "effects"
        self.bucket = folder / "bucket.db" if uploads else None
        self.names = names
        self.generation = 0
        self._forks = forks

    def live_for(self, seconds: float, fault: Fault | None = None, write: int = 0) -> bool:
        """A life that is ended with SIGKILL after `seconds`, or meets `fault` at a `write` of its. True when it had
        done everything before."""
        self.generation += 1
        life = {
            "path": str(self.path),
            "names": self.names,
            "effects": str(self.effects_path),
            "generation": self.generation,
            "bucket": str(self.bucket or ""),
            "seconds": seconds,
            "runs": self.runs,
            "seed": self.seed,
            "fault": fault,
            "write": write,
        }
        status = self._forks.life(life)
        refused = status == REFUSED << 8 and fault in ("error", "full")
        assert refused or status in (0, signal.SIGKILL), f"a life ended by itself with status {status}"
        return status == 0

    def live(self) -> None:
        """A life to the end."""
        assert self.live_for(LONGEST_LIFE_S)

    def writes(self) -> int:
        """How many writes the last life that ended by itself made; counted where it had a fault to meet."""
        return int(self.path.with_name("writes").read_text())

    def lose_the_machine(self) -> None:
        """What was not uploaded is gone."""
        assert self.bucket is not None
        for name in (self.path.name, self.path.name + "-wal", self.path.name + "-shm"):
            self.path.with_name(name).unlink(missing_ok=True)
        if self.bucket.exists():
            self.path.write_bytes(self.bucket.read_bytes())

    def log(self) -> list[tuple[str, int, str, dict[str, Any]]]:
        """Run, seq, kind, body of everything recorded."""
        return [(w, s, k, json.loads(b)) for w, s, k, b in self._rows("SELECT workflow, seq, kind, body FROM log")]

    def ends(self) -> dict[str, Any]:
        """The result of every run that is completed."""
        return {run: body["result"] for run, _, kind, body in self.log() if kind == "completed"}

    def recorded(self) -> set[str]:
        """The keys of the steps whose result is recorded."""
        return {f"{run}:{body['id']}" for run, _, kind, body in self.log() if kind == "activity_completed"}

    def effects(self) -> list[Effect]:
        """Every time that an activity began; a line that the kill cut off never happened."""
        if not self.effects_path.exists():
            return []
        lines = self.effects_path.read_text().split("\n")[:-1]
        return [Effect(*json.loads(line)) for line in lines]

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            return []
        db = connect(self.path, query_only=True)
        try:
            return db.execute(sql).fetchall() if db.pragma("user_version") else []
        finally:
            db.close()


class Lives:
    """How long each life lasts, from one seed: longer when the last had no time to record anything, else shorter."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._longest_s = 0.06

    def next_s(self, recorded_something: bool) -> float:
        """The length of the next life."""
        change = 0.9 if recorded_something else 1.3
        self._longest_s = min(max(change * self._longest_s, 0.02), 5.0)
        return self._draw.uniform(0.0, self._longest_s)


def new_seed() -> int:
    """Printed by the test that uses it, so that a failure can be run again."""
    return int(os.environ.get("SEED", time.time_ns() % 2**32))


if __name__ == "__main__":
    fork_lives()
