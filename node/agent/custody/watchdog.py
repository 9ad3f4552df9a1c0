"""When a sidecar is dead, stuck or behind, and when somebody else writes into its prefix. Pure; times of one clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from node.agent.custody.values import FileLag

# An upload that is slower than this is taken for one that hangs. A first snapshot goes up three times.
SLOWEST_BYTES_PER_S = 2 << 20


class Verdict(Enum):
    """What to do about what was seen."""

    RESTART = "restart"
    BEHIND = "behind"
    CAUGHT_UP = "caught_up"
    FOREIGN_WRITER = "foreign_writer"
    UNGUARDED = "unguarded"
    GUARDED = "guarded"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. `stuck_s`: a position stands still while there is lag; `silent_s`: no answer; `call_s`: a confirming
    call is under way; `foreign_s`: the bucket is ahead of the file; `steady_s`: raw transactions stay for at least so
    long on the disk; `unguarded_s`: no reader's lock of the sidecar's keeps a log from being reset; `alone_s` (and with
    an rpo of 0): so often the newest objects of a tenant that writes are compared, for a LIST a file."""

    stuck_s: float = 20.0
    silent_s: float = 15.0
    call_s: float = 45.0
    foreign_s: float = 10.0
    steady_s: float = 60.0
    unguarded_s: float = 30.0
    alone_s: float = 300.0
    alone_rpo_0_s: float = 60.0
    first_wait_s: float = 5.0
    longest_wait_s: float = 600.0

    def compared_every_s(self, rpo_s: float) -> float:
        """How often the bucket is asked whether somebody else writes there."""
        return self.alone_s if rpo_s else self.alone_rpo_0_s

    def uploading(self, size_bytes: int) -> Limits:
        """The limits of a sidecar that may be uploading so much in one go: meanwhile its position stands, it answers
        no `/sync`, and whoever restarts it makes it begin again."""
        more_s = size_bytes / SLOWEST_BYTES_PER_S
        return replace(
            self, stuck_s=self.stuck_s + more_s, silent_s=self.silent_s + more_s, call_s=self.call_s + more_s
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a sidecar. `files` None: no answer. `call_s` is how long the oldest confirming call is under way.

    `skipped`: a file went on past a transaction that was never copied here: it is somebody else's, fetched from the
    bucket. `mixed`: the newest objects in the bucket are not copies of this volume's.
    """

    at: float
    files: Mapping[str, FileLag] | None
    lag_s: float | None = None
    call_s: float | None = None
    skipped: bool = False
    mixed: bool = False
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Watch:
    """What the looks so far add up to."""

    since: float
    answered_at: float
    moved_at: float
    replicated: Mapping[str, int | None] = field(default_factory=dict)
    txids: Mapping[str, int | None] = field(default_factory=dict)
    txids_at: float = 0.0
    foreign_since: float | None = None
    behind: bool = False
    unguarded_since: float | None = None
    unguarded: bool = False
    wait_s: float = 0.0
    not_before: float = 0.0


def start(at: float) -> Watch:
    """A sidecar that was just started."""
    return Watch(since=at, answered_at=at, moved_at=at)


def look(watch: Watch, seen: Seen, limits: Limits, *, behind_s: float) -> tuple[Watch, tuple[Verdict, ...]]:
    """Take one look into account. `behind_s` is the lag from which the tenant counts as behind."""
    watch, verdicts = _lag(watch, seen, behind_s)
    watch, more = _guard(watch, seen, limits)
    verdicts += more
    if seen.files is not None:
        watch = _position(watch, seen.at, seen.files)
    above = watch.foreign_since is not None and seen.at - watch.foreign_since >= limits.foreign_s
    if seen.skipped or seen.mixed or above:
        verdicts.append(Verdict.FOREIGN_WRITER)
    elif _hangs(watch, seen, limits) and seen.at >= watch.not_before:
        verdicts.append(Verdict.RESTART)
    return watch, tuple(verdicts)


def restarted(watch: Watch, at: float, limits: Limits) -> Watch:
    """It was started again: the next restart for the same trouble waits twice as long."""
    wait_s = min(max(watch.wait_s * 2, limits.first_wait_s), limits.longest_wait_s)
    return replace(
        start(at),
        behind=watch.behind,
        wait_s=wait_s,
        not_before=at + wait_s,
        txids=watch.txids,
        txids_at=watch.txids_at,
    )


def nexts(watch: Watch, files: Mapping[str, FileLag], at: float, limits: Limits) -> dict[str, int]:
    """The transaction that must have followed the last one seen of each file that went on, if it is not long ago."""
    if at - watch.txids_at > limits.steady_s:
        return {}
    before = {db: watch.txids.get(db) or 0 for db in files}
    return {db: before[db] + 1 for db, f in files.items() if 0 < before[db] < (f.txid or 0)}


def resumed(watch: Watch, at: float) -> Watch:
    """The machine was frozen, or could not look: nothing of that time counts."""
    return replace(watch, answered_at=at, moved_at=at, foreign_since=None, unguarded_since=None)


def _lag(watch: Watch, seen: Seen, behind_s: float) -> tuple[Watch, list[Verdict]]:
    if seen.lag_s is None:
        return watch, []
    if seen.lag_s > behind_s and not watch.behind:
        return replace(watch, behind=True), [Verdict.BEHIND]
    if seen.lag_s == 0 and watch.behind:
        return replace(watch, behind=False), [Verdict.CAUGHT_UP]
    return watch, []


def _guard(watch: Watch, seen: Seen, limits: Limits) -> tuple[Watch, list[Verdict]]:
    """A checkpoint lets go for a moment; a log that stays unguarded can lose what was not copied."""
    if seen.guarded:
        told = [Verdict.GUARDED] if watch.unguarded else []
        return replace(watch, unguarded_since=None, unguarded=False), told
    since = watch.unguarded_since if watch.unguarded_since is not None else seen.at
    if watch.unguarded or seen.at - since < limits.unguarded_s:
        return replace(watch, unguarded_since=since), []
    return replace(watch, unguarded_since=since, unguarded=True), [Verdict.UNGUARDED]


def _position(watch: Watch, at: float, files: Mapping[str, FileLag]) -> Watch:
    replicated = {db: f.replicated_txid for db, f in files.items()}
    lagging = any((f.txid or 0) > (f.replicated_txid or 0) for f in files.values())
    above = any((f.replicated_txid or 0) > (f.txid or 0) > 0 for f in files.values())
    moved = replicated != watch.replicated or not lagging
    return replace(
        watch,
        answered_at=at,
        moved_at=at if moved else watch.moved_at,
        replicated=replicated,
        txids={db: f.txid for db, f in files.items()},
        txids_at=at,
        foreign_since=(watch.foreign_since if watch.foreign_since is not None else at) if above else None,
        wait_s=0.0 if not lagging else watch.wait_s,
    )


def _hangs(watch: Watch, seen: Seen, limits: Limits) -> bool:
    return (
        seen.at - watch.answered_at >= limits.silent_s
        or seen.at - watch.moved_at >= limits.stuck_s
        or (seen.call_s is not None and seen.call_s >= limits.call_s)
    )
