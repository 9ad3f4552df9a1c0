"""How many tenants a machine brings up at a time: the first are done soon, and the last no later than all at once."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import IntEnum

# Whoever needs longer waits for something else than a processor, and is not counted any more.
LENT_S = 10.0


class Rank(IntEnum):
    """Who goes first of those that wait: whoever is nearer to its first answer."""

    CLAIM = 0
    VOLUME = 1
    SIDECAR = 2
    WORKER = 3


class Overtaken(Exception):
    """It waited for its place, and something else is wanted of the tenant by now."""


@dataclass(order=True)
class _Waiter:
    order: tuple[int, int]
    tenant: str = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Places:
    """`first` at a time until one of them is through, then `most`; it begins anew when nobody is left.

    A place is lent for `lent_s` seconds at most. Lives on the event loop. Only what computes takes one, and never what
    takes a tenant down.
    """

    def __init__(self, first: int = 1, most: int = 4, lent_s: float = LENT_S) -> None:
        self._first, self._most, self._lent_s = first, max(first, most), lent_s
        self._room, self._taken, self._number = first, 0, 0
        self._waiting: list[_Waiter] = []

    @property
    def taken(self) -> int:
        """How many are lent now."""
        return self._taken

    @contextlib.asynccontextmanager
    async def place(
        self, tenant: str, rank: Rank, on_wait: Callable[[int], None] = lambda _: None, *, last: bool = False
    ) -> AsyncIterator[None]:
        """Hold one. `on_wait` hears how many are before it, if it waits; with the `last` one its tenant is through.
        Raises Overtaken."""
        await self._take(tenant, rank, on_wait)
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._taken -= 1
                self._call()

        lapse = asyncio.get_running_loop().call_later(self._lent_s, give_back)
        try:
            yield
            if last:
                self._room = self._most
        finally:
            lapse.cancel()
            give_back()

    def withdraw(self, tenant: str) -> None:
        """Something else is wanted of this tenant: it waits no more."""
        for waiter in self._waiting:
            if waiter.tenant == tenant and not waiter.turn.done():
                waiter.turn.set_exception(Overtaken(tenant))

    async def _take(self, tenant: str, rank: Rank, on_wait: Callable[[int], None]) -> None:
        waiting = [waiter for waiter in self._waiting if not waiter.turn.done()]
        if not self._taken and not waiting:
            self._room = self._first
        if self._taken < self._room and not waiting:
            self._taken += 1
            return
        self._number += 1
        waiter = _Waiter((-rank, self._number), tenant, asyncio.get_running_loop().create_future())
        before = self._taken + sum(other.order < waiter.order for other in waiting)
        heapq.heappush(self._waiting, waiter)
        on_wait(before)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self._taken -= 1  # it was its turn, and nobody is there to take it
                self._call()
            raise

    def _call(self) -> None:
        while self._waiting and (self._taken < self._room or self._waiting[0].turn.done()):
            waiter = heapq.heappop(self._waiting)
            if not waiter.turn.done():
                self._taken += 1
                waiter.turn.set_result(None)
