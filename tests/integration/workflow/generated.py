"""Workflows that a seed makes up: a tree of everything that the library offers, and the one workflow that walks it.

Whatever is killed, a tree has one result: an activity answers by its arguments alone, and who wins a race is certain.
A chancy tree asks for the same steps, each time with other numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import Any, Final

from node.workflow import Context, Retry, activity, activity_info, workflow
from node.workflow.errors import ActivityFailed, ChildFailed, ScopeTimeout
from tests.integration.workflow.effects import effect

Tree = list[Any]
FAR_S: Final = 3600.0


@activity
async def step(name: str, before: int) -> int:
    effect(name, before)
    await asyncio.sleep(0)
    return mixed_up(name, before)


@activity
def threaded(name: str, before: int) -> int:
    effect(name, before)
    return mixed_up(name, before)


@activity(retry=Retry(max_attempts=10, initial_interval_s=0.001, max_interval_s=0.002))
async def moody(name: str, before: int) -> int:
    effect(name, before)
    if activity_info().attempt < 3:
        raise ConnectionError("not today")
    return mixed_up(name, before)


@activity(retry=Retry(max_attempts=1))
async def broken(name: str, before: int) -> int:
    effect(name, before)
    raise ValueError(name)


@activity
async def drawn(name: str, before: int) -> int:
    """Another result each time: whoever acts on one must act on the one that is recorded."""
    effect(name, before)
    return random.getrandbits(32)


def mixed_up(name: str, before: int) -> int:
    """Another number for other arguments."""
    return int.from_bytes(hashlib.sha256(f"{name} {before}".encode()).digest()[:6], "big")


@workflow
async def tree(ctx: Context, input: dict[str, Any]) -> int:
    """Walk `input["tree"]` from the number `input["before"]`."""
    return await _walk(ctx, input["tree"], input["before"])


async def _walk(ctx: Context, node: Tree, before: int) -> int:
    """The number that a node makes of the one before it."""
    kind, *rest = node
    after: int = await _NODES[kind](ctx, before, *rest)
    return after


async def _run(ctx: Context, before: int, which: str, name: str) -> int:
    found = {"step": step, "threaded": threaded, "moody": moody, "drawn": drawn}[which]
    return await ctx.run(found, name, before)


async def _fail(ctx: Context, before: int, name: str) -> int:
    try:
        return await ctx.run(broken, name, before)
    except ActivityFailed:
        return await ctx.run(step, f"after {name}", before)


async def _sequence(ctx: Context, before: int, *nodes: Tree) -> int:
    for node in nodes:
        before = await _walk(ctx, node, before)
    return before


async def _gather(ctx: Context, before: int, limit: int, *nodes: Tree) -> int:
    return sum(await ctx.gather(*(_walk(ctx, node, before + i) for i, node in enumerate(nodes)), limit=limit))


async def _race(ctx: Context, before: int, winner: Tree, cleanup: str) -> int:
    async def loser() -> int:
        try:
            await ctx.sleep(FAR_S)
        finally:
            await ctx.run(step, cleanup, before)  # cleanup may act
        return 0

    first = await ctx.race(loser(), _walk(ctx, winner, before))
    return first.which + first.value


async def _bounded(ctx: Context, before: int, name: str) -> int:
    try:
        async with ctx.timeout(0.001):
            await ctx.sleep(FAR_S)
    except ScopeTimeout:
        return await ctx.run(step, name, before)
    return 0


async def _child(ctx: Context, before: int, node: Tree) -> int:
    return await ctx.child(tree, {"tree": node, "before": before})


async def _failing_child(ctx: Context, before: int, name: str) -> int:
    try:
        return await ctx.child(tree, {"tree": ["fall", name], "before": before})
    except ChildFailed:
        return before + 1


async def _fall(ctx: Context, before: int, name: str) -> int:
    return await ctx.run(broken, name, before)


async def _sleep(ctx: Context, before: int, seconds: float) -> int:
    await ctx.sleep(seconds)
    return before + 1


async def _signal(ctx: Context, before: int, name: str) -> int:
    ctx.signal(ctx.run_id, name, before)  # to itself: it is buffered, and waited for next
    return int(await ctx.wait_signal(name)) + 1


async def _state(ctx: Context, before: int, key: str) -> int:
    ctx.set_state({key: before})
    return before


_NODES: Final[dict[str, Callable[..., Any]]] = {
    "run": _run,
    "fail": _fail,
    "sequence": _sequence,
    "gather": _gather,
    "race": _race,
    "bounded": _bounded,
    "child": _child,
    "failing_child": _failing_child,
    "fall": _fall,
    "sleep": _sleep,
    "signal": _signal,
    "state": _state,
}


class Grower:
    """Makes trees up, from one source of chance. `chancy` trees have activities with another result each time."""

    def __init__(self, draw: random.Random, *, chancy: bool = False) -> None:
        self._draw = draw
        self._chancy = chancy
        self._names = 0

    def tree(self, depth: int = 3) -> Tree:
        """A sequence of a few nodes, up to `depth` levels deep."""
        return ["sequence", *(self._node(depth) for _ in range(self._draw.randint(2, 4)))]

    def _node(self, depth: int) -> Tree:
        leaves = ("step", "threaded", "moody", "fail", "bounded", "failing_child", "sleep", "signal", "state")
        inner = ("sequence", "gather", "race", "child")
        match self._draw.choice(leaves + inner if depth > 1 else leaves):
            case "sequence":
                return self.tree(depth - 1)
            case "gather":
                return ["gather", self._draw.randint(1, 3), *(self._node(depth - 1) for _ in range(3))]
            case "race":
                return ["race", self._node(depth - 1), self._name()]
            case "child":
                return ["child", self.tree(depth - 1)]
            case "sleep":
                return ["sleep", 0.001]
            case "step" | "threaded" | "moody" as activity:
                return ["run", "drawn" if self._chancy and activity != "moody" else activity, self._name()]
            case leaf:
                return [leaf, self._name()]

    def _name(self) -> str:
        self._names += 1
        return f"n{self._names}"
