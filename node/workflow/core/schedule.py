"""Which times of a schedule are due. Pure: the clock is a value, what became of earlier times is handed in.

Times are moments (unix milliseconds) that a cron expression names in a time zone. A time within the hour that a change
to summer time leaves out comes right after it; one within the hour that comes twice is due once, unless the expression
says every hour.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal, TypeAlias, get_args

from node.workflow.errors import InvalidInput
from node.workflow.values.attributes import check_attributes
from node.workflow.values.dataclass import dataclass

Overlap: TypeAlias = Literal[
    "skip",  # a time that comes while a run of the schedule is open is left out
    "buffer_one",  # one such time waits until that run has ended
    "buffer_all",  # all such times wait, one after the other
    "cancel_other",  # the open run is cancelled; the newest such time waits until it has ended
    "terminate_other",  # the open run is terminated, and another begins
    "allow_all",  # runs are open side by side
]
OVERLAPS: Final[tuple[Overlap, ...]] = get_args(Overlap)
AT_ONCE: Final = 100  # times decided in one go
LONGEST_S: Final = 366 * 86_400.0

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ALIASES: Final[Mapping[str, str]] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Starts runs of a workflow at the times of a cron expression. Raises InvalidInput that names the field.

    cron         five fields, or six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.
    overlap      what happens when a time comes while a run of this schedule is open.
    catchup_window_s  times that were missed, as nothing ran, are made up for if they are not older than this.
    jitter_s     each run begins up to so many seconds late, always the same for one time.
    queue …      as in `Engine.start`.
    """

    id: str
    workflow: str
    cron: str
    input: Any = None
    time_zone: str = "UTC"
    overlap: Overlap = "skip"
    catchup_window_s: float = 86_400.0
    jitter_s: float = 0.0
    queue: str | None = None
    queue_key: str | None = None
    priority: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidInput("id", "letters, digits, '.', '_', '-', beginning with one of the first two, at most 64")
        if self.overlap not in OVERLAPS:
            raise InvalidInput("overlap", f"one of {', '.join(OVERLAPS)}")
        if not 10 <= self.catchup_window_s <= LONGEST_S:
            raise InvalidInput("catchup_window_s", f"from 10 to {LONGEST_S:g} seconds")
        if not 0 <= self.jitter_s <= 86_400:
            raise InvalidInput("jitter_s", "from 0 to 86400 seconds")
        check_attributes(self.attributes)
        zone(self.time_zone)
        if next(times(self, _SOME_MOMENT_MS), None) is None:
            raise InvalidInput("cron", f"{self.cron!r:.200} names no time that ever comes")

    def run_id(self, at_ms: int) -> str:
        """The id of the run for one time: the same whenever it is asked for."""
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
        return f"{self.id}:{moment:%Y-%m-%dT%H:%M:%SZ}"

    def late_ms(self, at_ms: int) -> int:
        """By how much the run for one time is late on purpose."""
        if not self.jitter_s:
            return 0
        drawn = hashlib.sha256(f"{self.id}:{at_ms}".encode()).digest()
        return int.from_bytes(drawn[:8], "big") * round(1000 * self.jitter_s) >> 64

    def spec(self) -> str:
        """Everything but id and input as JSON text, as the file keeps it."""
        return json.dumps({name: getattr(self, name) for name in SPEC}, sort_keys=True)


SPEC: Final = (
    "workflow", "cron", "time_zone", "overlap", "catchup_window_s", "jitter_s", "queue", "queue_key", "priority",
    "attributes",
)  # fmt: skip  # the names, in the order of their meaning
_HOURS: Final = 24
_MINUTE: Final = timedelta(minutes=1)
_SOME_MOMENT_MS: Final = 1_700_000_000_000


@functools.lru_cache(maxsize=32)
def zone(name: str) -> tzinfo:
    """The time zone of this name. Raises InvalidInput."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # imported here: most programs have no schedules

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise InvalidInput("time_zone", f"{name!r:.80} is no time zone such as Europe/Vienna") from None


def times(schedule: Schedule, after_ms: int) -> Iterator[int]:
    """The times after a moment, in order, each once. Raises InvalidInput for an expression that can't be read."""
    from cronsim import CronSim, CronSimError  # imported here: most programs have no schedules

    expression = _ALIASES.get(schedule.cron, schedule.cron)
    start = datetime.fromtimestamp(after_ms // 1000, UTC).astimezone(zone(schedule.time_zone))
    try:
        found = CronSim(expression, start)
    except CronSimError as error:
        raise InvalidInput("cron", f"{schedule.cron!r:.200}: {error}") from None
    moments: Iterator[datetime] = found
    if len(found.hours) < _HOURS:
        local = CronSim(expression, start.replace(tzinfo=None))
        moments = (_moment(time, start.tzinfo) for time in local)
    last_ms = after_ms
    for moment in moments:
        at_ms = round(moment.timestamp()) * 1000
        if at_ms > last_ms:  # an hour that comes twice is walked through twice
            last_ms = at_ms
            yield at_ms


def _moment(local: datetime, in_zone: tzinfo | None) -> datetime:
    """When the clocks of a zone show this time first; right after it, when they leave it out."""
    moment = local.replace(tzinfo=in_zone)
    while moment.astimezone(UTC).astimezone(in_zone).replace(tzinfo=None) != local:
        local = local.replace(second=0) + _MINUTE
        moment = local.replace(tzinfo=in_zone)
    return moment


@dataclass(frozen=True, slots=True)
class Due:
    """What a look at a schedule finds: the times to act on, up to where every time is decided, when to look again, and
    what was left out.
    """

    times: tuple[int, ...]
    looked_at: int
    next_at: int | None
    note: str | None


def due(schedule: Schedule, looked_at: int, now_ms: int, done: Callable[[int], bool]) -> Due:
    """What is due at `now_ms`, when every time up to `looked_at` has been decided.

    `done` says whether something became of a time already: so a clock that goes back fires nothing twice, and what it
    had jumped over is due when its time comes.
    """
    after, note = min(looked_at, now_ms), None
    oldest = now_ms - round(1000 * (schedule.catchup_window_s + schedule.jitter_s))
    if after < oldest:
        missed = next(times(schedule, after), None)
        if missed is not None and missed <= oldest:
            note = f"{_text(missed)} and what followed until {_text(oldest)} is past the catch-up window"
        after = oldest
    found: list[int] = []
    for at_ms in times(schedule, after):
        if at_ms > now_ms:
            return Due(tuple(found), now_ms, at_ms + schedule.late_ms(at_ms), note)
        begins = at_ms + schedule.late_ms(at_ms)
        if begins > now_ms:
            return Due(tuple(found), at_ms - 1, begins, note)
        if not done(at_ms):
            if len(found) == AT_ONCE:
                return Due(tuple(found), at_ms - 1, now_ms, note)
            found.append(at_ms)
    return Due(tuple(found), now_ms, None, note)


Action: TypeAlias = Literal["start", "skip", "buffer", "replace", "cancel", "terminate"]


def act(overlap: Overlap, is_open: bool, buffered: Collection[int]) -> tuple[Action, ...]:
    """What to do with a time that is due: the steps in order.

    `is_open`: a run of the schedule is open. `replace` takes the place of what is buffered.
    """
    if overlap == "allow_all" or not (is_open or buffered):
        return ("start",)
    match overlap:
        case "skip":
            return ("skip",)
        case "buffer_one":
            return ("skip",) if buffered else ("buffer",)
        case "buffer_all":
            return ("buffer",)
        case "cancel_other":
            return ("cancel", "replace")
        case "terminate_other":
            return ("terminate", "start")


def _text(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
