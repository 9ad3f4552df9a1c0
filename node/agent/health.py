"""Waiting for a worker's first good answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Asked often at first, as a small server is up within a quarter of a second, then less and less.
FIRST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.5
ANSWER_S = 5.0


async def answers(address: str, path: str) -> str:
    """Ask once. Empty when healthy (2xx or 3xx), else what is wrong, for a person."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                line = (await reader.readline()).decode("latin-1").split()
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer within {ANSWER_S:g} s on port {port}"
    except OSError:
        return f"nothing listens on port {port}"
    if len(line) < 2 or not line[1].isdigit():
        return f"port {port} does not speak HTTP"
    return "" if 200 <= int(line[1]) < 400 else f"GET {path} answered {line[1]}"


async def wait_healthy(address: str, path: str, *, timeout_s: float, alive: Callable[[], bool]) -> str:
    """Ask until it answers well, it died, or `timeout_s` is over. Empty when healthy, else the last thing wrong."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    pause = FIRST_PAUSE_S
    while True:
        wrong = await answers(address, path)
        if not wrong:
            return ""
        if not alive():
            return "it ended"
        if loop.time() + pause > end:
            return f"{wrong} within {timeout_s:g} s"
        await asyncio.sleep(pause)
        pause = min(pause * 1.1, LONGEST_PAUSE_S)  # a tenth of the time so far is the most that is waited too long
