"""The tenant that the worker's tests serve."""

import os
import time
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from node.worker import Problem, durable
from node.workflow import Context, Retry, activity, workflow
from node.workflow.core.queue import Queue

GATES = Path(os.environ["NODE_DATA"])


@activity
def add(a: int, b: int) -> int:
    return a + b


@activity(retry=Retry(max_attempts=None))
def wait_for(gate: str) -> str:
    """Leaves a mark of each execution, and ends once the test has opened the gate."""
    with (GATES / f"{gate}.executions").open("a") as marks:
        marks.write("x")
    while not (GATES / gate).exists():
        time.sleep(0.01)
    return gate


@activity(retry=Retry(max_attempts=1))
def fail() -> None:
    raise RuntimeError("as asked")


@workflow
async def total(ctx: Context, numbers: list[int]) -> int:
    sum_ = 0
    for number in numbers:
        sum_ = await ctx.run(add, sum_, number)
    return sum_


@workflow
async def gated(ctx: Context, gate: str) -> int:
    before = await ctx.run(add, 1, 1)
    await ctx.run(wait_for, gate)
    return await ctx.run(add, before, 1)


@workflow
async def failing(ctx: Context) -> None:
    await ctx.run(fail)


@workflow
async def approval(ctx: Context) -> object:
    return await ctx.wait_signal("approved")


@workflow
async def rounds(ctx: Context, n: int) -> int:
    await ctx.wait_signal("go")
    if n > 0:
        ctx.continue_as_new(n - 1)
    return n


@workflow
async def asked(ctx: Context) -> object:
    ctx.on_query("double", lambda n: 2 * n)
    return await ctx.wait_signal("go")


queues = [Queue("mail", concurrency=1)]


async def slow(request):
    """Answers once the gate is open."""
    import asyncio

    (GATES / "slow.asked").touch()
    while not (GATES / "slow").exists():  # noqa: ASYNC110  the test opens this gate in another process
        await asyncio.sleep(0.01)
    return PlainTextResponse("slow, but done")


async def broken(request):
    raise RuntimeError("a bug of the tenant")


async def refused(request):
    raise Problem(422, "too-green", "colour: too green", field="colour")


async def stored(request):
    await durable(timeout_s=0.5)
    return PlainTextResponse("stored")


routes = [
    Route("/slow", slow),
    Route("/broken", broken),
    Route("/refused", refused),
    Route("/stored", stored, methods=["PUT"]),
    Route("/healthz", broken),
]
