"""Where sync activities run: a bounded number of threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from node.workflow.errors import AttemptOver
from node.workflow.values.dataclass import dataclass

Outcome: TypeAlias = tuple[Any, BaseException | None]

MOST_LOST: Final = 4  # threads that are replaced, for each thread there may be


@dataclass(slots=True)
class _Call:
    fn: Callable[..., Any]
    arguments: list[Any]
    context: contextvars.Context
    outcome: asyncio.Future[Outcome]
    lost: bool = False


class Threads:
    """Threads for calls that block, at most `count` that anybody waits for.

    A call that nobody waits for any more keeps its thread until it ends; the thread is lost to the pool meanwhile and
    replaced, unless four times `count` are lost already. All methods are called on the event loop.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._idle: list[queue.SimpleQueue[_Call | None]] = []
        self._started = 0
        self._closed = False
        self.lost = 0

    async def place(self) -> None:
        """Wait for a free thread, so that the time in a queue is no part of an attempt's time."""
        await self._free.acquire()

    def release(self) -> None:
        """Give back what `place` got, without a call."""
        self._free.release()

    async def call(self, fn: Callable[..., Any], arguments: list[Any]) -> Outcome:
        """Run `fn` on the thread that `place` got, in a copy of this context. Returns its value or its error.

        Raises RuntimeError or MemoryError where the machine has no thread to give; the place is given back then.
        """
        loop = asyncio.get_running_loop()
        call = _Call(fn, arguments, contextvars.copy_context(), loop.create_future())
        try:
            inbox = self._idle.pop() if self._idle else self._start(loop)
        except BaseException:  # no thread can be had now (memory, a limit of processes): the next call finds its place
            self.release()
            raise
        inbox.put(call)
        try:
            return await asyncio.shield(call.outcome)
        except asyncio.CancelledError:
            self._lose(call)
            raise

    def close(self) -> None:
        """Start no more calls. Those that run go on unheard, and do not hold the process."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _start(self, loop: asyncio.AbstractEventLoop) -> queue.SimpleQueue[_Call | None]:
        inbox: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started += 1
        name = f"workflow-activity-{self._started}"
        threading.Thread(target=self._work, args=(loop, inbox), name=name, daemon=True).start()
        return inbox

    def _work(self, loop: asyncio.AbstractEventLoop, inbox: queue.SimpleQueue[_Call | None]) -> None:
        while (call := inbox.get()) is not None:
            outcome = call.context.run(_outcome, call.fn, call.arguments)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for a thread
                loop.call_soon_threadsafe(self._ended, inbox, call, outcome)
            del call, outcome  # an idle thread keeps nothing alive

    def _ended(self, inbox: queue.SimpleQueue[_Call | None], call: _Call, outcome: Outcome) -> None:
        if not call.outcome.done():
            call.outcome.set_result(outcome)
        if call.lost:  # its place was given to another thread
            self.lost -= 1
            inbox.put(None)
            return
        self._free.release()
        if self._closed:
            inbox.put(None)
        else:
            self._idle.append(inbox)

    def _lose(self, call: _Call) -> None:
        if not call.outcome.done() and self.lost < MOST_LOST * self._count:
            call.lost = True
            self.lost += 1
            self._free.release()


def _outcome(fn: Callable[..., Any], arguments: list[Any]) -> Outcome:
    try:
        return fn(*arguments), None
    except StopIteration as error:  # a coroutine can't raise this one
        return None, RuntimeError(f"StopIteration: {error}")
    except asyncio.CancelledError:
        return None, RuntimeError("the activity cancelled itself")
    except (Exception, SystemExit, AttemptOver) as error:  # noqa: BLE001 - it is the outcome
        return None, error
    except BaseException as error:  # noqa: BLE001 - the thread must live, and the loop must not end by it
        return None, RuntimeError(f"{type(error).__name__}: {error}")
