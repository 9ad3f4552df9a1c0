"""Events: a bounded ring in memory. The lineage is the durable history; resuming past the ring says so."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

import structlog

Kind = Literal[
    "applied", "state", "rolled_back", "proven", "purged", "parked", "retry", "node", "behind", "warning", "record",
    "failover", "leader", "garbage", "gap",
]  # fmt: skip
RING = 10_000

log = structlog.get_logger("fleet.events")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `number` counts from 1 in this process; `at` is unix time."""

    number: int
    at: float
    kind: Kind
    message: str
    tenant: str | None = None
    node: str | None = None
    generation: int | None = None
    state: str | None = None
    reason: str = ""


class Events:
    """The ring. An event's id is `<run>-<number>`: `run` is new in every process, so that an old id is recognised."""

    def __init__(self, *, size: int = RING, clock: Callable[[], float] = time.time, run: str | None = None) -> None:
        self.run = run or secrets.token_hex(4)
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=size)
        self._number = 0
        self._more = asyncio.Event()

    def emit(
        self,
        kind: Kind,
        message: str,
        *,
        tenant: str | None = None,
        node: str | None = None,
        generation: int | None = None,
        state: str | None = None,
        reason: str = "",
    ) -> None:
        """Add an event, and log it."""
        self._number += 1
        event = Event(self._number, self._clock(), kind, message, tenant, node, generation, state, reason)
        self._ring.append(event)
        fields = {"tenant": tenant, "node": node, "generation": generation, "state": state, "reason": reason}
        log.info(message, kind=kind, **{k: v for k, v in fields.items() if v not in (None, "")})
        self._more.set()
        self._more = asyncio.Event()

    def id_of(self, event: Event) -> str:
        """What a client resumes with."""
        return f"{self.run}-{event.number}"

    def after(self, last_id: str) -> tuple[list[Event], bool]:
        """Events after an id, and whether some in between are no longer known."""
        run, _, text = last_id.rpartition("-")
        number = int(text) if text.isdecimal() and len(text) < 19 else -1
        if run != self.run or not 0 <= number <= self._number:
            return list(self._ring), True
        missing = bool(self._ring) and self._ring[0].number > number + 1
        return [e for e in self._ring if e.number > number], missing

    @property
    def last_id(self) -> str:
        """The newest event's id; of none yet, one that all events come after."""
        return f"{self.run}-{self._number}"

    @property
    def size(self) -> int:
        """How many events are kept."""
        return self._ring.maxlen or 0

    def recent(self, count: int) -> list[Event]:
        """The last `count` events, oldest first."""
        return list(self._ring)[-count:] if count > 0 else []

    async def follow(self, last_id: str, *, heartbeat_s: float, end: bool = False) -> AsyncIterator[Event | None]:
        """Events after an id, and those to come unless `end`; None when nothing came for `heartbeat_s` seconds. Begins
        with a `gap` if some after that id are no longer known."""
        found, missing = self.after(last_id)
        number = found[0].number - 1 if found else self._number
        if missing:
            text = "events before this one are no longer known to this controller; read the tenants' state again"
            yield Event(number, self._clock(), "gap", text)
        while True:
            more = self._more
            fresh = [e for e in self._ring if e.number > number] if self._number > number else []
            for event in fresh:
                yield event
                number = event.number
            if fresh:
                continue
            if end:
                return
            try:
                async with asyncio.timeout(heartbeat_s):
                    await more.wait()
            except TimeoutError:
                yield None
