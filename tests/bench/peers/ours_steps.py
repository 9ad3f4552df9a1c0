"""This project's library: `full` and `normal` are SQLite's synchronous levels, WAL both."""

from __future__ import annotations

import asyncio
from typing import cast

from node.workflow import Context, Engine, activity, workflow
from node.workflow.log.sqlite import Synchronous
from tests.bench.peers.loop import STEPS, arguments, measure


@activity
async def one(n: int) -> int:
    return n + 1


@workflow
async def ten(ctx: Context, n: int) -> int:
    for _ in range(STEPS):
        n = await ctx.run(one, n)
    return n


async def main() -> None:
    folder, durability, at_once, seconds = arguments()
    engine = Engine(folder / "log.db", [ten], synchronous=cast("Synchronous", durability), checkpoint=True)
    await engine.open()

    async def run(run_id: str) -> None:
        await engine.start("ten", 0, run_id)
        assert (await engine.result(run_id)).unwrap() == STEPS

    await measure(run, at_once, seconds)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
