"""approvals: a tenant whose runs wait for somebody's word, and that has metrics of its own."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from node.workflow import Context, activity, workflow


@dataclass(frozen=True)
class Order:
    """What is to be approved."""

    what: str = "coffee"


@activity
def note(text: str) -> str:
    """A step that leaves something in the log of the container."""
    print(f"noted: {text}", flush=True)
    return text


@workflow
async def approve(ctx: Context, order: Order = Order()) -> str:
    """Waits for the signal `word` and returns what was said."""
    await ctx.run(note, order.what)
    word = await ctx.wait_signal("word", type=str)
    return f"{order.what}: {word}"


@workflow
async def refuse(ctx: Context, order: Order = Order()) -> str:
    """Fails."""
    raise ValueError(f"no {order.what} today")


async def hello(_: Request) -> JSONResponse:
    """`GET /hello`."""
    return JSONResponse({"hello": "world"})


routes = [Route("/hello", hello)]
