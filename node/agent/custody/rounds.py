"""Group commit: one round in flight, one queued; a queued round serves everyone who came before it started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class State(Enum):
    """Of the rounds of one thing."""

    IDLE = "idle"
    FLYING = "flying"
    QUEUED = "queued"  # one flies, one waits for it


class Event(Enum):
    """What happens to them."""

    JOINED = "joined"
    LANDED = "landed"


TABLE: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.JOINED): State.FLYING,
    (State.FLYING, Event.JOINED): State.QUEUED,
    (State.QUEUED, Event.JOINED): State.QUEUED,
    (State.FLYING, Event.LANDED): State.IDLE,
    (State.QUEUED, Event.LANDED): State.FLYING,
}


def step(state: State, event: Event) -> State:
    """The state after an event. Raises ValueError for one that cannot come."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ValueError(f"{event.value} cannot happen while {state.value}") from None


class Rounds(Generic[T]):
    """Runs `work` in rounds. One that flies already never serves a newcomer: it may have begun before his commit."""

    def __init__(self, work: Callable[[], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._work = work
        self._clock = clock
        self._state = State.IDLE
        self._next: asyncio.Future[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self.flying_since: float | None = None

    def join(self) -> asyncio.Future[T]:
        """The outcome of a round that starts from now on. Shield it: others wait for the same one."""
        before, self._state = self._state, step(self._state, Event.JOINED)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        future = self._next
        if before is State.IDLE:
            self._fly()
        return future

    async def settled(self, timeout_s: float) -> T:
        """`join`, with a bound on this caller's waiting; the round itself goes on. Raises TimeoutError."""
        return await asyncio.wait_for(asyncio.shield(self.join()), timeout_s)

    def abandon(self, error: Exception) -> None:
        """Fail everyone who waits, and stop the round in flight: its sidecar is gone."""
        if self._task is not None:
            self._task.cancel()
        if self._next is not None and not self._next.done():
            _fail(self._next, error)
        self._next = None
        if self._state is State.QUEUED:
            self._state = State.FLYING

    def _fly(self) -> None:
        future, self._next = self._next, None
        if future is not None:
            self.flying_since = self._clock()
            self._task = asyncio.get_running_loop().create_task(self._run(future))
            # Not in `_run` itself: a task that is cancelled before its first step never enters it.
            self._task.add_done_callback(lambda _: self._landed(future))

    async def _run(self, future: asyncio.Future[T]) -> None:
        try:
            result = await self._work()
            if not future.done():
                future.set_result(result)
        except Exception as e:  # noqa: BLE001 - whatever it was belongs to those who wait
            _fail(future, e)

    def _landed(self, future: asyncio.Future[T]) -> None:
        _fail(future, ConnectionAbortedError("the round was abandoned"))
        self.flying_since = None
        self._state = step(self._state, Event.LANDED)
        if self._state is State.FLYING:
            self._fly()


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # a waiter that gave up must not leave a warning behind
