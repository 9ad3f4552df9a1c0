"""A process of the simulated world: an event loop of its own that runs the product's coroutines in virtual time.

Blocking calls, which the product makes in threads, run in greenlets: one gives way where it calls the bucket or sleeps,
and goes on at the moment that the world decides. So one seed decides every interleaving.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import greenlet  # type: ignore[import-untyped] # it has no types

from tests.sim.clock import Clock, Event, Scheduler

T = TypeVar("T")
_TURNS = 20_000


class Call:
    """A callback that is due, as asyncio's handles are."""

    __slots__ = ("args", "call", "context", "timer")

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None) -> None:
        self.call: Callable[..., object] | None = call
        self.args = args
        self.context = context
        self.timer: Event | None = None

    def cancel(self) -> None:
        """It is not called."""
        self.call, self.args = None, ()
        if self.timer is not None:
            self.timer.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.call is None


class Thread(greenlet.greenlet):  # type: ignore[misc] # it has no types
    """Makes one blocking call after the other, as a pool's thread does; one whose process died is dropped."""

    process: Process
    work: Callable[[], None]

    def run(self) -> None:
        """Wait for the next call once one is done."""
        while True:
            self.work()
            del self.work, self.process  # who waits for the next call keeps no world alive
            _idle.append(self)
            self.parent.switch()


_idle: list[Thread] = []
_turning: Process | None = None
_told: Process | None = None


class Process(asyncio.BaseEventLoop):
    """Alive until it is killed; while it is paused nothing in it moves, and what is due waits."""

    def __init__(
        self, scheduler: Scheduler, clock: Clock, name: str, failed: Callable[[str, BaseException], None]
    ) -> None:
        self.scheduler = scheduler
        self.clock = clock
        self.name = name
        self.alive = True
        self.paused = False
        self.owner: object = None
        self._failed = failed
        self._ready: deque[Call] = deque()
        self._armed = False
        self._kept: dict[int, object] = {}

    # ---- what happens to it

    def kill(self) -> None:
        """It ends at once: no `finally` of it runs."""
        self.alive = False
        self._ready.clear()

    def pause(self) -> None:
        """It stands still."""
        self.paused = True

    def go_on(self) -> None:
        """It moves again; what became due meanwhile is due now."""
        self.paused = False
        self._arm()

    def start(self, main: Coroutine[Any, Any, object]) -> None:
        """Run the process's main coroutine; its error is a defect of the product."""

        def ended(task: asyncio.Task[object]) -> None:
            if self.alive and not task.cancelled() and (error := task.exception()) is not None:
                self._failed(self.name, error)

        self.create_task(main).add_done_callback(ended)

    # ---- what asyncio asks of a loop

    def call_soon(  # type: ignore[override] # a handle of our own
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Call:
        call = Call(callback, args, context)
        if self.alive:
            self._ready.append(call)
            self._arm()
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment] # there are no threads

    def call_later(  # type: ignore[override] # a handle of our own
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Call:
        return self.call_at(self.clock.now() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override] # a handle of our own
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Call:
        call = Call(callback, args, context)

        def due() -> None:
            if not self.alive or call.call is None:
                return
            if not self.clock.reached(when):  # the clock stood still meanwhile
                call.timer = self.scheduler.at(max(self.clock.until(when), self.scheduler.now + 0.01), due)
                return
            self._ready.append(call)
            self._arm()

        call.timer = self.scheduler.at(self.clock.until(when), due)
        return call

    def time(self) -> float:
        return self.clock.now()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(
            coro, loop=self, name=None if name is None else str(name), context=context
        )
        self._kept[id(task)] = task  # a killed process's coroutines are not closed: their `finally` would run
        task.add_done_callback(self._let_go)
        return task

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._kept.pop(id(task), None)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override] # no executor
        future: asyncio.Future[T] = self.create_future()
        self.spawn(func, args, future)
        return future

    def spawn(self, func: Callable[..., T], args: tuple[Any, ...], future: asyncio.Future[T] | None) -> None:
        """Run a blocking call beside everything else."""

        def work() -> None:
            try:
                result = func(*args)
            except greenlet.GreenletExit:
                raise
            except BaseException as e:
                if future is None:
                    raise
                if not future.done():
                    future.set_exception(e)
            else:
                if future is not None and not future.done():
                    future.set_result(result)
            self._kept.pop(id(thread), None)

        thread = _idle.pop() if _idle else Thread()
        thread.process, thread.work = self, work
        self._kept[id(thread)] = thread
        thread.switch()

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return True  # nothing is open in it

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        return None

    default_exception_handler = call_exception_handler

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override] # nobody signals
        return None

    def _timer_handle_cancelled(self, handle: object) -> None:
        return None

    # ---- turning

    def _arm(self) -> None:
        if self._ready and not self._armed and not self.paused and self.alive:
            self._armed = True
            self.scheduler.soon(self._turn)

    def _turn(self) -> None:
        self._armed = False
        if not self.alive or self.paused:
            return
        ready = self._ready
        _enter(self)
        try:
            for _ in range(_TURNS):
                if not ready or not self.alive or self.paused:
                    return
                due = ready.popleft()
                if due.call is None:
                    continue
                if due.context is not None:
                    due.context.run(due.call, *due.args)
                else:
                    due.call(*due.args)
            raise RuntimeError(f"{self.name} turns without end")
        finally:
            _leave()


def _enter(turning: Process) -> None:
    """Asyncio is told only of another one than before: it asks the kernel for a process id each time."""
    global _turning, _told
    _turning = turning
    if _told is not turning:
        _told = turning
        events._set_running_loop(turning)


def _leave() -> None:
    global _turning
    _turning = None


def over() -> None:
    """No process turns any more."""
    global _told
    _told = None
    events._set_running_loop(None)


def process() -> Process:
    """The process that is running now, in a coroutine or in a blocking call."""
    current = greenlet.getcurrent()
    if isinstance(current, Thread):
        return current.process
    assert _turning is not None, "nothing is running"
    return _turning


def wait(arrange: Callable[[Callable[[Any], None]], None]) -> Any:
    """Give way in a blocking call. `arrange` gets what to call with the value that this then answers."""
    thread = greenlet.getcurrent()
    assert isinstance(thread, Thread) and thread.parent is not None
    owner = thread.process
    arrange(lambda value: void(owner.call_soon(thread.switch, value)))
    return thread.parent.switch()


def void(_: object) -> None:
    """Nothing."""


def sleep(seconds: float) -> None:
    """Sleep in a blocking call, by the process's own clock."""
    owner = process()
    wait(lambda go_on: void(owner.call_later(seconds, go_on, None)))
