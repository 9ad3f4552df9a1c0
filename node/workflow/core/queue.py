"""The rule by which runs leave a queue. Pure: values in, a selection out.

Runs go in the order of their *place*, the smallest first. A run that arrives as the n-th gets place n plus 100 for each
point of its priority, so a more urgent run passes at most 100 others for each point that they differ: whoever waits is
overtaken a bounded number of times, whatever arrives later and whatever the clock says. A run whose key is at its limit
is passed over without losing its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from node.workflow.errors import InvalidInput
from node.workflow.values.dataclass import dataclass

PLACES_A_POINT: Final = 100
PRIORITIES: Final = range(-100, 101)
_LARGEST: Final = 1_000_000
_LONGEST_PERIOD_S: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue's limits; None: no bound. Raises InvalidInput that names the field.

    concurrency    runs at a time that have left the queue and not ended; one process serves a log, so this is both the
                   bound of the process and the global one.
    per_key        the same for runs of one `queue_key`.
    rate_limit     runs that begin within any `rate_period_s` seconds.
    paused         nothing leaves it.
    """

    name: str
    concurrency: int | None = None
    per_key: int | None = None
    rate_limit: int | None = None
    rate_period_s: float | None = None
    paused: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 200:
            raise InvalidInput("name", "from 1 to 200 characters")
        for field in ("concurrency", "per_key", "rate_limit"):
            value = getattr(self, field)
            if value is not None and not 1 <= value <= _LARGEST:
                raise InvalidInput(field, f"from 1 to {_LARGEST}, or none for no bound")
        if (self.rate_limit is None) is not (self.rate_period_s is None):
            raise InvalidInput("rate_period_s", "rate_limit and rate_period_s go together")
        if self.rate_period_s is not None and not 0.001 <= self.rate_period_s <= _LONGEST_PERIOD_S:
            raise InvalidInput("rate_period_s", f"from 0.001 to {_LONGEST_PERIOD_S:g} seconds")

    @property
    def rate_period_ms(self) -> int | None:
        """The period of the rate limit."""
        return None if self.rate_period_s is None else round(1000 * self.rate_period_s)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run in a queue."""

    run_id: str
    key: str | None
    place: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What has left the queue: how many run, how many of each key, and when the newest began (unix milliseconds)."""

    running: int = 0
    by_key: Mapping[str, int] | None = None
    begun: tuple[int, ...] = ()


def place(arrival: int, priority: int) -> int:
    """Where the run that arrives as number `arrival` stands."""
    return arrival + PLACES_A_POINT * priority


def free(queue: Queue, usage: Usage, now_ms: int) -> tuple[int, int | None]:
    """How many runs may leave now, whatever their keys, and when the rate limit lets more of them (None: it is not
    what holds them).
    """
    if queue.paused:
        return 0, None
    places = _LARGEST if queue.concurrency is None else queue.concurrency - usage.running
    if queue.rate_limit is None or queue.rate_period_ms is None:
        return max(places, 0), None
    within = sorted(at for at in usage.begun if now_ms - queue.rate_period_ms < at <= now_ms)
    allowed = queue.rate_limit - len(within)
    if allowed >= places:
        return max(places, 0), None
    again_ms = within[-queue.rate_limit] if allowed <= 0 else within[0] if within else now_ms
    return max(allowed, 0), again_ms + queue.rate_period_ms


def select(queue: Queue, waiting: Iterable[Waiting], usage: Usage, now_ms: int) -> list[Waiting]:
    """Who leaves the queue now, of `waiting` in the order of their places."""
    count, _ = free(queue, usage, now_ms)
    by_key = Counter(usage.by_key or {})
    chosen: list[Waiting] = []
    for run in waiting:
        if len(chosen) >= count:
            break
        if run.key is not None and queue.per_key is not None:
            if by_key[run.key] >= queue.per_key:
                continue
            by_key[run.key] += 1
        chosen.append(run)
    return chosen
