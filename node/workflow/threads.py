"""Where sync activities run: a bounded number of threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

Outcome: TypeAlias = tuple[Any, BaseException | None]


class Threads:
    """Threads for calls that block. A call that nobody waits for any more keeps its thread until it ends."""

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, "workflow-activity")
        self._free = asyncio.Semaphore(count)

    async def place(self) -> None:
        """Wait for a free thread, so that the time in a queue is no part of an attempt's time."""
        await self._free.acquire()

    async def call(self, fn: Callable[..., Any], arguments: list[Any]) -> Outcome:
        """Run `fn` on the thread that `place` got, in a copy of this context. Returns its value or its error."""
        loop = asyncio.get_running_loop()
        call = self._executor.submit(contextvars.copy_context().run, _call, fn, arguments)

        def ended(_: Future[Outcome]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a thread
                loop.call_soon_threadsafe(self._free.release)

        call.add_done_callback(ended)
        return await asyncio.wrap_future(call)

    def close(self) -> None:
        """Start no more calls. Those that run go on unheard."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _call(fn: Callable[..., Any], arguments: list[Any]) -> Outcome:
    try:
        return fn(*arguments), None
    except StopIteration as error:  # a future refuses to carry this one
        return None, RuntimeError(f"StopIteration: {error}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the outcome
        return None, error
