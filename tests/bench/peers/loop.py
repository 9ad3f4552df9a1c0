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
LONGEST_S = 60.0


async def measure(workflow: Callable[[str], Awaitable[object]], at_once: int, seconds: float) -> None:
    """Call `workflow` with a fresh id again and again, `at_once` side by side; print what was done in the time.

    Counted are workflows that ended after the warm-up. It goes on, for a minute at most, until each client has had two
    on average: of what ends all of them at once, a short time would see none end.
    """
    begin = time.perf_counter() + WARM_UP_S
    ended: list[float] = []
    over = False

    async def client(number: int) -> None:
        nonlocal over
        turn = 0
        while not over:
            turn += 1
            await workflow(f"w-{number}-{turn}")
            now = time.perf_counter()
            if now >= begin and not over:
                ended.append(now)
            over = over or now >= begin + LONGEST_S or (now >= begin + seconds and len(ended) >= 2 * at_once)

    await asyncio.gather(*(client(number) for number in range(at_once)))
    took = max(ended, default=begin) - begin
    print(json.dumps({"steps": STEPS * len(ended), "seconds": took}), flush=True)


def arguments() -> tuple[Path, str, int, float]:
    """Folder, durability, how many at once, seconds."""
    folder, durability, at_once, seconds = sys.argv[1:]
    return Path(folder), durability, int(at_once), float(seconds)
