"""When to look at a machine's lease, and when its silence ends its session. Pure: reads and times in, values out.

Times are seconds of the observer's own monotonic clock. What decides is the lease alone: an agent that does not answer
while its machine renews is not dead, and one that answers while its machine does not is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.bucket.liveness import Sighting, Verdict, look
from node.bucket.records import Lease

# A machine renews this often in one ttl.
RENEWALS = 3
# A lease is looked for a little before it is due, and again in short steps until it has changed: so a renewal is seen
# at most a step after it was made, for one read and a half each.
EARLY = 0.95
STEPS = 10
# One that nobody may revoke: whether it still is.
SOLO_S = 30.0


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one machine's lease. `read_at`: the end of the last read that was answered.

    `steady_at`: the end of the first answered read since the bucket was last out of sight of this observer. `due`: when
    to read again, None when nothing is to be found any more: the session is over.
    """

    sighting: Sighting
    verdict: Verdict
    read_at: float
    steady_at: float
    due: float | None


def after_read(track: Track | None, lease: Lease, *, began: float, ended: float) -> Track:
    """What a read of the lease from `began` to `ended` says. `track` None: it is the first of it.

    `silent`: the session may be ended now, by a compare-and-swap under the ETag of this very read. That needs the whole
    window of `liveness.look`; and where the bucket was out of sight meanwhile, machines may have had no way to renew
    either: they get the time of a renewal first, or the end of an outage would be the end of every session.
    """
    period_s = lease.ttl_s / RENEWALS
    seen, verdict = look(track.sighting if track is not None else None, lease, began=began, ended=ended)
    blind = track is not None and began - track.read_at > period_s
    steady_at = ended if track is None or blind else track.steady_at
    if verdict == "silent" and began < steady_at + period_s:
        verdict = "alive"
    due = _due(track, seen, verdict, lease, steady_at, ended)
    return Track(seen, verdict, ended, steady_at, due)


def overdue(track: Track, lease: Lease) -> bool:
    """Whether the machine's own deadline has passed, by the last answered read: nothing on it may run until it renews.

    Counted from when the last renewal was seen, which is later than when it was made.
    """
    return lease.mode == "shared" and lease.state != "gone" and track.read_at - track.sighting.since > lease.ttl_s


def after_failure(track: Track, lease: Lease, *, ended: float) -> Track:
    """A read failed or did not answer, until `ended`: nothing is known but that it is tried again soon."""
    return replace(track, due=ended + lease.ttl_s / RENEWALS / STEPS)


def _due(
    track: Track | None, seen: Sighting, verdict: Verdict, lease: Lease, steady_at: float, ended: float
) -> float | None:
    if verdict == "over":
        return None
    if lease.mode == "solo":
        return ended + SOLO_S
    period_s = lease.ttl_s / RENEWALS
    step_s = period_s / STEPS
    if track is not None and track.sighting != seen:
        return ended + EARLY * period_s
    decides_at = max(seen.since + lease.ttl_s + lease.margin_s, steady_at + period_s)
    return min(ended + step_s, decides_at) if decides_at > ended else ended + step_s
