"""Many runs that wait for a signal, on one core; then all of them get it at once.

FOLDER COUNT
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from node.workflow import Context, Engine, workflow
from tests.bench.programs.memory import Memory
from tests.bench.programs.waiting import spread, until_waiting


@workflow
async def parked(ctx: Context, n: int) -> int:
    """Waits until it is told how much to add."""
    return n + int(await ctx.wait_signal("go"))


async def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the threads that follow inherit it
    ids = [f"order-{n:06}" for n in range(count)]
    path = folder / "workflow.db"
    engine = Engine(path, [parked], checkpoint=True)
    await engine.open()
    await engine.start("parked", 0, "warm")
    await engine.signal("warm", "go", 1)
    assert (await engine.result("warm")).unwrap() == 1
    empty = Memory.settled()

    began = time.perf_counter()
    await spread(ids, lambda run_id: engine.start("parked", 1, run_id))
    await until_waiting(path, count)
    start_s = time.perf_counter() - began
    waiting = Memory.settled()

    began = time.perf_counter()
    await asyncio.gather(*(engine.signal(run_id, "go", 2) for run_id in ids))
    told_s = time.perf_counter() - began
    for run_id in ids:
        await engine.result(run_id)
    done_s = time.perf_counter() - began
    assert all(engine.get(run_id).unwrap() == 3 for run_id in ids)
    done = Memory.settled()
    await engine.close()
    told = {"start_s": start_s, "told_s": told_s, "done_s": done_s}
    memory = {"empty": asdict(empty), "waiting": asdict(waiting), "done": asdict(done)}
    print(json.dumps({**told, **memory}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
