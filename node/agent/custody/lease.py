"""The lease as this machine's guard writes it. Pure: values and times in, values out.

Times are seconds of this machine's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.agent.custody.session import Mode, Session
from node.bucket.records import Capacity, Lease

RENEWALS_PER_TTL = 3


def renew_at(session: Session, *, attempted: float) -> float:
    """When the next renewal is due; `attempted` is when the last one began. At once after a late answer or a freeze."""
    if session.state == "frozen" or (session.enforced and attempted >= session.deadline):
        return attempted + min(1.0, session.ttl_s / RENEWALS_PER_TTL)
    return attempted + session.ttl_s / RENEWALS_PER_TTL


def retry_after(attempt: int, *, ttl_s: float) -> float:
    """Seconds until the same write is sent again after attempt `attempt` (from 1) failed: short, at most ttl/6."""
    return min(0.1 * 2 ** (attempt - 1), ttl_s / 6) if attempt < 16 else ttl_s / 6


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine says of itself in its lease; `id` is its state folder's."""

    node: str
    url: str
    capacity: Capacity
    labels: dict[str, str]
    version: str
    gateway_url: str = ""
    id: str = ""


def first(me: Machine, before: Lease | None, *, session: Session, nonce: str) -> Lease:
    """The lease of a new session: one number past the last that was ever written, fields of newer versions kept."""
    number = (before.session if before else 0) + 1
    return _lease(me, before, number=number, seq=1, session=session, mode=session.mode, nonce=nonce)


def next_lease(me: Machine, before: Lease, *, session: Session, mode: Mode, nonce: str) -> Lease:
    """The renewal that follows `before`, our last write; `mode` is what the fleet wants now."""
    return _lease(me, before, number=session.session, seq=before.seq + 1, session=session, mode=mode, nonce=nonce)


def _lease(
    me: Machine, before: Lease | None, *, number: int, seq: int, session: Session, mode: Mode, nonce: str
) -> Lease:
    draining = before is not None and before.state == "draining" and number == before.session
    return Lease(
        **(before.model_extra or {} if before else {}),
        nonce=nonce,
        node=me.node,
        session=number,
        seq=seq,
        ttl_s=session.ttl_s,
        margin_s=session.margin_s,
        url=me.url,
        gateway_url=me.gateway_url,
        state="draining" if draining else "active",
        mode=mode,
        capacity=me.capacity,
        labels=me.labels,
        version=me.version,
        machine=me.id,
    )
