"""How long one step takes, as the code of a workflow sees it: from its call to its recorded result.

FOLDER DURABILITY AT_ONCE SECONDS
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import cast

from node.workflow import Context, Engine, activity, workflow
from node.workflow.log.sqlite import Synchronous
from tests.bench.figures import quantile
from tests.bench.peers.loop import STEPS, WARM_UP_S, arguments

took: list[tuple[float, float]] = []  # when a step began, and how many seconds it took


@activity
async def one(n: int) -> int:
    """A step that costs nothing itself."""
    return n + 1


@workflow
async def ten(ctx: Context, n: int) -> int:
    """Ten of them, by the clock: a look at it changes nothing that the run does."""
    for _ in range(STEPS):
        began = time.perf_counter()
        n = await ctx.run(one, n)
        took.append((began, time.perf_counter() - began))
    return n


async def main() -> None:
    folder, durability, at_once, seconds = arguments()
    engine = Engine(folder / "log.db", [ten], synchronous=cast("Synchronous", durability), checkpoint=True)
    await engine.open()
    begin = time.perf_counter() + WARM_UP_S
    end = begin + seconds
    runs: list[tuple[float, float]] = []

    async def client(number: int) -> None:
        turn = 0
        while (began := time.perf_counter()) < end:
            turn += 1
            run_id = f"w-{number}-{turn}"
            await engine.start("ten", 0, run_id)
            assert (await engine.result(run_id)).unwrap() == STEPS
            runs.append((began, time.perf_counter() - began))

    await asyncio.gather(*(client(number) for number in range(at_once)))
    await engine.close()
    steps = [one for at, one in took if begin <= at < end]
    whole = [one for at, one in runs if begin <= at < end]
    told: dict[str, float] = {"steps": len(steps), "runs": len(whole)}
    told |= {f"step_p{p}_ms": round(quantile(steps, p / 100) * 1e3, 4) for p in (50, 99)}
    told |= {f"run_p{p}_ms": round(quantile(whole, p / 100) * 1e3, 4) for p in (50, 99)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
