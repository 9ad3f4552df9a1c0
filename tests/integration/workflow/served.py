"""Engines on real files, for tests that are plain functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from node.workflow import Engine, Workflow

BOUND_S = 90.0  # of every wait; reached only by what is broken


@asynccontextmanager
async def served(path: Path, *definitions: Workflow, **options: Any) -> AsyncIterator[Engine]:
    """An open engine on `path`, closed without grace."""
    engine = Engine(path, definitions, **{"checkpoint": True, **options})
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close(grace_s=0)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine, bounded in time."""

    async def bounded() -> None:
        async with asyncio.timeout(BOUND_S):
            await main()

    asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that will be true."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 - the condition is somebody else's state, it has no event
            await asyncio.sleep(0.002)


class Durable:
    """What confirms commits, answered by the test: closed, it lets calls wait; `failing`, it raises."""

    def __init__(self) -> None:
        self.calls = 0
        self.confirmed = 0
        self.failing = False
        self._open = asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        if self.failing:
            raise OSError("the bucket does not answer")
        await self._open.wait()
        self.confirmed += 1

    def open(self) -> None:
        """Let calls return."""
        self._open.set()

    def shut(self) -> None:
        """Let calls wait."""
        self._open.clear()


Check = Callable[[], Awaitable[None]]
