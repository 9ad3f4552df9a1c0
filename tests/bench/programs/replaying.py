"""A run with a long history.

fill FOLDER EVENTS   leaves a log with a run that waits for a signal, with so many events
load FOLDER EVENTS   the engine opens that log and the run, which is not in memory, gets its signal and ends
pure FOLDER EVENTS   the same history, as values, is replayed against the code, again and again
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from node.workflow import Context, Engine, activity, replay, workflow

RUN = "long"
REPEATS = 7


@activity
async def one(n: int) -> int:
    """A step that costs nothing itself."""
    return n + 1


@workflow
async def long(ctx: Context, steps: int) -> int:
    """Steps, and a wait."""
    n = 0
    for _ in range(steps):
        n = await ctx.run(one, n)
    return n + int(await ctx.wait_signal("go"))


def steps_of(events: int) -> int:
    """A step leaves two events, and two are left beside the steps: the start and the wait."""
    return (events - 2) // 2


async def fill(path: Path, events: int) -> dict[str, object]:
    """Make the run."""
    async with Engine(path, [long], synchronous="normal", checkpoint=True) as engine:
        await engine.start("long", steps_of(events), RUN)
        async for events_seen in engine.follow(RUN):
            if events_seen[-1].seq == events:
                break
        assert len(engine.history(RUN)) == events
    return {}


async def load(path: Path, events: int) -> dict[str, object]:
    """Bring it into memory."""
    async with Engine(path, [long], checkpoint=True) as engine:
        began = time.perf_counter()
        await engine.signal(RUN, "go", 1)
        assert (await engine.result(RUN)).unwrap() == steps_of(events) + 1
        seconds = time.perf_counter() - began
        replayed = engine.stats().replayed_events
    assert replayed >= events, replayed
    return {"seconds": [seconds]}


async def pure(path: Path, events: int) -> dict[str, object]:
    """Nothing but the code and the history."""
    seconds, read = [], []
    async with Engine(path, [long], checkpoint=True) as engine:
        for _ in range(REPEATS):
            began = time.perf_counter()
            history = engine.history(RUN)
            read.append(time.perf_counter() - began)
            began = time.perf_counter()
            done = replay(history, long)
            seconds.append(time.perf_counter() - began)
            assert done.problem is None, done.problem
            assert done.events >= events
    return {"seconds": seconds, "read_seconds": read}


def main() -> None:
    what, folder, events = sys.argv[1:]
    work = {"fill": fill, "load": load, "pure": pure}[what]
    print(json.dumps(asyncio.run(work(Path(folder) / "workflow.db", int(events)))), flush=True)


if __name__ == "__main__":
    main()
