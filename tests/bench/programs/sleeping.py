"""Many runs that sleep, and a process that opens their log.

fill FOLDER COUNT           leaves the log
open FOLDER COUNT STARTED   STARTED: unix time at which this process was started
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from node.workflow import Context, Engine, workflow
from tests.bench.programs.memory import Memory
from tests.bench.programs.waiting import spread, until_waiting


@workflow
async def asleep(ctx: Context, n: int = 0) -> int:
    """Sleeps for long enough."""
    await ctx.sleep(days=30 + n % 300)
    return n


async def fill(path: Path, count: int) -> dict[str, object]:
    """Make the runs."""
    engine = Engine(path, [asleep], synchronous="normal", checkpoint=True)
    await engine.open()
    began = time.perf_counter()
    numbers = {f"order-{n:06}": n for n in range(count)}
    await spread(list(numbers), lambda run_id: engine.start("asleep", numbers[run_id], run_id))
    await until_waiting(path, count)
    start_s = time.perf_counter() - began
    await engine.close()
    return {"start_s": start_s}


async def cold(path: Path, count: int, started: float) -> dict[str, object]:
    """Open the log; ready is when a run can be started and the next timer is known."""
    imported, before = time.time(), Memory.settled()
    engine = Engine(path, [asleep], checkpoint=True)
    began = time.perf_counter()
    await engine.open()
    open_s = time.perf_counter() - began
    ready_s = time.time() - started
    assert engine.next_due() is not None
    assert engine.stats().runs["running"] == count
    after = Memory.settled()
    began = time.perf_counter()
    await engine.start("asleep")
    first_start_s = time.perf_counter() - began
    await engine.close()
    times = {"import_s": imported - started, "open_s": open_s, "ready_s": ready_s}
    return {**times, "first_start_s": first_start_s, "before": asdict(before), "after": asdict(after)}


def main() -> None:
    what, folder, count, *more = sys.argv[1:]
    path = Path(folder) / "workflow.db"
    work = fill(path, int(count)) if what == "fill" else cold(path, int(count), float(more[0]))
    print(json.dumps(asyncio.run(work)), flush=True)


if __name__ == "__main__":
    main()
