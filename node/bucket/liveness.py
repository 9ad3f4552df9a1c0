"""When another machine's session is over, by its lease. Pure: values and times in, values out.

Times are seconds of the observer's own monotonic clock; no clock is compared with another machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from node.bucket.records import Lease

Verdict = Literal["alive", "silent", "over"]


def gone(before: Lease, *, nonce: str) -> Lease:
    """The same lease with its session over: what a machine writes when it leaves, or an observer in its place."""
    return before.model_copy(update={"state": "gone", "nonce": nonce})


class Sessioned(Protocol):
    """What says which session of a machine is, or was, its last: a lease, or what a controller made of one."""

    @property
    def session(self) -> int: ...
    @property
    def state(self) -> Literal["active", "draining", "gone"]: ...


def session_over(lease: Sessioned, session: int) -> bool:
    """Whether a node's session is over by what its lease says: gone for it, or a later one. Never merely another."""
    return lease.session > session or (lease.session == session and lease.state == "gone")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an observer last saw of a lease: (session, seq), and when the read that first showed them had ended."""

    session: int
    seq: int
    since: float


def look(seen: Sighting | None, lease: Lease, *, began: float, ended: float) -> tuple[Sighting, Verdict]:
    """Judge a lease that was read from `began` to `ended` on the observer's own monotonic clock.

    `silent` means that a CAS of `gone` under the ETag of *this* read may follow: the same (session, seq) was first seen
    more than ttl + margin before this read began. A solo machine is never silent: it runs on through an outage.
    """
    same = seen is not None and (seen.session, seen.seq) == (lease.session, lease.seq)
    now_seen = seen if same and seen is not None else Sighting(lease.session, lease.seq, since=ended)
    if lease.state == "gone":
        return now_seen, "over"
    if same and lease.mode == "shared" and began >= now_seen.since + lease.ttl_s + lease.margin_s:
        return now_seen, "silent"
    return now_seen, "alive"
