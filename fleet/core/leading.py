"""Which of several controllers acts, by a lease in the bucket. Pure: reads and times in, values out.

A convenience: two that act are harmless, as everything they do is a compare-and-swap or may be repeated. Times are
seconds of the controller's own monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from node.bucket.records import Leader

TTL_S = 15.0
# The leader renews, and the others look, so often in one ttl.
LOOKS = 3
# While others write through their own API, the leader looks for their word this often, for so long after the last one.
ALERT_LOOK_S = 1.0
ALERT_S = 600.0

Verdict = Literal["mine", "free", "theirs"]


@dataclass(frozen=True, slots=True)
class Me:
    """This controller. The name is the same after a restart, so that it takes up again what it left."""

    name: str
    url: str
    ttl_s: float = TTL_S


@dataclass(frozen=True, slots=True)
class Seen:
    """The leader as last read: whose, its seq, and when the read that first showed them had ended."""

    controller: str
    seq: int
    since: float


def judge(
    me: Me, seen: Seen | None, found: Leader | None, *, began: float, ended: float
) -> tuple[Seen | None, Verdict]:
    """Judge the record that was read from `began` to `ended`. `free`: whoever is first by compare-and-swap may lead."""
    if found is None:
        return None, "free"
    same = seen is not None and (seen.controller, seen.seq) == (found.controller, found.seq)
    now_seen = seen if same and seen is not None else Seen(found.controller, found.seq, since=ended)
    if found.released:
        return now_seen, "free"
    if found.controller == me.name:
        return now_seen, "mine"
    if same and began >= now_seen.since + found.ttl_s:
        return now_seen, "free"
    return now_seen, "theirs"


def taken(me: Me, before: Leader | None, *, nonce: str) -> Leader:
    """The record with this controller leading, or going on to lead."""
    if before is None:
        return Leader(nonce=nonce, controller=me.name, seq=1, ttl_s=me.ttl_s, url=me.url)
    mine = {"controller": me.name, "url": me.url, "ttl_s": me.ttl_s, "released": False}
    return before.model_copy(update={**mine, "seq": before.seq + 1, "nonce": nonce})


def released(before: Leader, *, nonce: str) -> Leader:
    """The record with nobody leading: the next controller need not wait."""
    return before.model_copy(update={"released": True, "seq": before.seq + 1, "nonce": nonce})


def poked(before: Leader, *, nonce: str) -> Leader:
    """The record with a word to the leader that somebody else changed what should be."""
    return before.model_copy(update={"poked": before.poked + 1, "nonce": nonce})
