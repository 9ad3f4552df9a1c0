"""What the engine tells of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final, Literal, TypeAlias, get_args

from node.workflow.errors import (
    RunBlocked,
    RunCancelled,
    RunContinued,
    RunFailed,
    RunNotFinished,
    RunTerminated,
)
from node.workflow.values.dataclass import dataclass
from node.workflow.values.measure import SIZES, Histogram
from node.workflow.values.payload import decoder

State: TypeAlias = Literal[
    "queued", "running", "blocked", "completed", "failed", "cancelled", "terminated", "continued"
]
STATES: Final[tuple[State, ...]] = get_args(State)
CLOSED: Final[frozenset[State]] = frozenset({"completed", "failed", "cancelled", "terminated", "continued"})


def incarnation(continued_from: str | None) -> int:
    """Which one a run is of those that went on for each other, by the id that the one before it has now: 0 is the
    first, and the numbers rise.
    """
    return 0 if continued_from is None else int(continued_from.rpartition("~")[2])


@dataclass(frozen=True, slots=True)
class Started:
    """The answer to a start: `created` is False when the run was there already, with the same input."""

    run_id: str
    created: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A run as of now. Times are unix seconds. `input`, `result` and `user_state` are plain JSON values.

    `error` is set when failed (`type`, `message`, `traceback`) and when blocked (`type`, `message`, and for a
    mismatch `seq`, `recorded`, `code`). `waits` says what it waits for, such as `activity charge, attempt 2`, `signal
    approved`, `timer`. A run that is `paused` keeps its state and does not go on.
    """

    id: str
    workflow: str
    state: State
    input: Any
    result: Any
    error: dict[str, Any] | None
    user_state: Any
    waits: tuple[str, ...]
    created_at: float
    updated_at: float
    closed_at: float | None = None
    paused: bool = False
    parent: str | None = None
    continued_from: str | None = None
    continued_to: str | None = None
    forked_from: str | None = None
    schedule: str | None = None
    queue: str | None = None
    queue_key: str | None = None
    priority: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def incarnation(self) -> int:
        """Which one it is of those that went on for each other under its id; 0 is the first."""
        return incarnation(self.continued_from)

    @property
    def closed(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self.state in CLOSED

    def unwrap(self, type: Any = Any) -> Any:
        """The result, read as `type` (plain JSON without it). Raises InvalidInput where it is none, RunFailed,
        RunCancelled, RunTerminated, RunContinued, RunBlocked or RunNotFinished.
        """
        match self.state:
            case "completed":
                return decoder(type, f"run {self.id}")(self.result, "result")
            case "failed":
                raise RunFailed(self.id, self.error or {})
            case "cancelled":
                raise RunCancelled(self.id)
            case "blocked":
                raise RunBlocked(self.id, self.error or {})
            case "terminated":
                raise RunTerminated(self.id)
            case "continued":
                raise RunContinued(self.id, self.continued_to)
            case "running" | "queued":
                raise RunNotFinished(self.id)


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs, newest first, and where the next page begins (None: this is the last one)."""

    runs: tuple[Run, ...]
    cursor: str | None


@dataclass(slots=True)
class Stats:
    """Counters since the engine was opened, but for `runs`, which counts every run in the file by state."""

    runs: dict[State, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    steps: int = 0  # activities that ended, well or badly
    retries: int = 0  # attempts that failed and are repeated
    events: int = 0  # appended to the log
    commits: int = 0
    last_commit_batch: int = 0  # runs in the newest commit
    commit_batches: Histogram = field(default_factory=lambda: Histogram(SIZES))  # runs in each commit
    attempt_seconds: Histogram = field(default_factory=Histogram)  # attempts of activities, from begin to end
    replay_seconds: Histogram = field(default_factory=Histogram)  # runs that came back into memory
    queued_activities: int = 0  # may run, and wait for a free place
    running_activities: int = 0
    lost_threads: int = 0  # run a sync activity that is past its time
    loaded_runs: int = 0  # in memory
    replayed_events: int = 0
    confirmations: int = 0
    failed_confirmations: int = 0
    failed_commits: int = 0

    def snapshot(self) -> Stats:
        """A copy that no longer changes."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        copies: dict[str, Any] = {n: v.copy() if isinstance(v, dict | Histogram) else v for n, v in values.items()}
        return Stats(**copies)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What seldom changes in the row of a run; the columns of the same names."""

    paused: bool = False
    parent: str | None = None
    parent_policy: str | None = None
    continued_from: str | None = None
    continued_to: str | None = None
    forked_from: str | None = None
    schedule: str | None = None
    queue: str | None = None
    queue_key: str | None = None
    priority: int = 0
    place: int | None = None
    admitted_at: int | None = None
    attributes: str | None = None  # a JSON object
    parent_step: int | None = None


NO_FACTS: Final = RunFacts()


@dataclass(frozen=True, slots=True)
class RunRow:
    """The row of current state in the file.

    Times are unix milliseconds; `user_state`, `error`, `waits` are JSON text.
    """

    id: str
    name: str
    state: State
    input_hash: str
    last_seq: int
    active: int
    waits: str
    user_state: str | None
    error: str | None
    created_at: int
    updated_at: int
    facts: RunFacts = NO_FACTS

    @property
    def incarnation(self) -> int:
        """Which one it is of those that went on for each other under its id."""
        return incarnation(self.facts.continued_from)

    @property
    def closed_at(self) -> int | None:
        """When it ended."""
        return self.updated_at if self.state in CLOSED else None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The newest one of a step, as the file keeps it. `details` is JSON text."""

    attempt: int
    at_ms: int
    details: str


Facts: TypeAlias = Mapping[str, Any]
