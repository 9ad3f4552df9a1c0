"""The loop that all of the programs share. It imports nothing but the standard library."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

STEPS = 10
WARM_UP_S = 1.0


async def measure(workflow: Callable[[str], Awaitable[object]], at_once: int, seconds: float) -> None:
    """Call `workflow` with a fresh id again and again, `at_once` side by side; print what was done in the time.

    Counted are workflows that began and ended between the warm-up and the end.
    """
    begin = time.perf_counter() + WARM_UP_S
    ended: list[float] = []

    async def client(number: int) -> None:
        turn = 0
        while time.perf_counter() < begin + seconds:
            turn += 1
            await workflow(f"w-{number}-{turn}")
            ended.append(time.perf_counter())

    await asyncio.gather(*(client(number) for number in range(at_once)))
    counted = [at for at in ended if begin <= at < begin + seconds]
    took = max(counted, default=begin) - begin
    print(json.dumps({"steps": STEPS * len(counted), "seconds": took}), flush=True)


def arguments() -> tuple[Path, str, int, float]:
    """Folder, durability, how many at once, seconds."""
    folder, durability, at_once, seconds = sys.argv[1:]
    return Path(folder), durability, int(at_once), float(seconds)
