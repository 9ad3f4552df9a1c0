"""What may be deleted of a tenant's epochs: nothing that a restore of any retained moment needs. Pure.

A restore to a moment takes each file from the newest epoch that was claimed before it and can give that file as of
then, and falls back to the one before (`travel`). So an epoch is needed until a later one can give its files as of the
oldest retained moment, the horizon: every later moment is then that one's, or of one later still.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from node.bucket.records import Lineage

GRACE_S = 3600.0
"""Kept for longer than retention: a restore that was asked for in time is still reading, and clocks differ."""

Why = Literal["current", "needed", "young", "superseded", "ahead"]

WHY: Mapping[Why, str] = {
    "current": "its tenant's data is here",
    "needed": "a restore of a retained moment would read it",
    "young": "something was uploaded into it within the retention",
    "superseded": "a later epoch holds every retained moment",
    "ahead": "a later epoch than its owner's: nobody here may judge it",
}
"""Why an epoch goes or stays, in words."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one epoch's prefix holds. `since` is, per file, the writer's time of the oldest state that can be restored
    from here, None if none can; `newest` the store's time of the last upload. Unix seconds."""

    epoch: int
    since: Mapping[str, float | None]
    newest: float
    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one epoch, and why: `by` is the epoch that makes it superfluous, 0 for none."""

    epoch: int
    goes: bool
    why: Why
    by: int = 0


def horizon(now: float, retention_s: float, grace_s: float = GRACE_S) -> float:
    """The oldest moment that must stay restorable."""
    return now - retention_s - grace_s


def judge(holdings: Iterable[Holding], history: Sequence[Lineage], *, data_epoch: int, horizon: float) -> list[Fate]:
    """The fate of every epoch that holds anything, oldest first.

    `history` are the tenant's lineage records, `data_epoch` the epoch whose owner asks, which is settled and streams.
    """
    found = sorted(holdings, key=lambda h: h.epoch)
    began = {r.epoch: r for r in history if r.epoch <= data_epoch and r.at <= horizon}
    fates = []
    for h in found:
        later = [(s, began[s.epoch]) for s in found if s.epoch > h.epoch and s.epoch in began]
        fates.append(_fate(h, _replaced_by(h, later, horizon), data_epoch, horizon))
    return fates


def _fate(h: Holding, by: int, data_epoch: int, horizon: float) -> Fate:
    if h.epoch == data_epoch:
        return Fate(h.epoch, goes=False, why="current")
    if h.epoch > data_epoch:
        return Fate(h.epoch, goes=False, why="ahead")
    if not by:
        return Fate(h.epoch, goes=False, why="needed")
    if h.newest > horizon:  # a zombie's: its machine may want to be asked about it, and nobody is in a hurry
        return Fate(h.epoch, goes=False, why="young", by=by)
    return Fate(h.epoch, goes=True, why="superseded", by=by)


def _replaced_by(h: Holding, later: Sequence[tuple[Holding, Lineage]], horizon: float) -> int:
    """The epoch from which on no restore of a moment past the horizon reads `h`, 0 if one does.

    `later` are those that a restore asks before it. A file that one of them took over and none can give is a gap, and
    then `h` is not superfluous; one that none of them ever had was not the tenant's any more.
    """
    by = [s.epoch for s, _ in later if any(_reaches(since, horizon) for since in s.since.values())][:1]
    for db in h.since:
        if any(db in s.since or db in record.cut for s, record in later):
            by.append(next((s.epoch for s, _ in later if _reaches(s.since.get(db), horizon)), 0))
    return max(by) if by and all(by) else 0


def _reaches(since: float | None, horizon: float) -> bool:
    return since is not None and since <= horizon


Aside = Literal["expired", "young", "unsettled", "clock"]

ASIDE: Mapping[Aside, str] = {
    "expired": "it was set aside for longer than the retention",
    "young": "it may be the only copy of what its tenant wrote last: it stays for the retention",
    "unsettled": "its tenant is not settled anywhere: this may be needed",
    "clock": "by this machine's clock it was set aside in the future: it stays",
}
"""Why a volume that was set aside goes or stays, in words."""


def expires(at: float, *, now: float, retention_s: float, settled: bool) -> tuple[bool, Aside]:
    """Whether a volume that was set aside at `at` may go; `settled`: its tenant has its data elsewhere, or is purged.

    Both times are this machine's own.
    """
    if not settled:
        return False, "unsettled"
    if at > now:
        return False, "clock"
    return (True, "expired") if at + retention_s <= now else (False, "young")
