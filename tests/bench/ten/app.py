"""The measurements' tenant of workflows: ten trivial steps, one after the other."""

from __future__ import annotations

from node.workflow import Context, activity, workflow

STEPS = 10


@activity
async def one(n: int) -> int:
    """A step that costs nothing itself."""
    return n + 1


@workflow
async def ten(ctx: Context, n: int) -> int:
    """Ten of them."""
    for _ in range(STEPS):
        n = await ctx.run(one, n)
    return n
