"""Where a tenant's requests go by the records in the bucket. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from node.bucket import liveness
from node.bucket.records import Lease, Owner

# States of an owner record in which no node runs the tenant, as the reason of a 503.
_DOWN = frozenset({"released", "hibernated", "lost", "damaged"})
# Reasons that pass by themselves, soon.
PASSING = frozenset({"failover", "starting", "gateway", "bucket_unreachable"})


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another node has the tenant: its gateway knows more. `session` is the one that must not be over."""

    node: str
    session: int
    url: str


@dataclass(frozen=True, slots=True)
class Absent:
    """There is such a tenant, and nobody who answers for it right now. `reason` is one token."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nobody:
    """There is no such tenant, or not any more."""


Whereabouts: TypeAlias = Elsewhere | Absent | Nobody


def judge(owner: Owner | None, lease: Lease | None, *, me: str, my_url: str) -> Whereabouts:
    """What an owner record, and the lease of the node that it names, say to node `me` whose gateway is at `my_url`.

    A tenant of our own is absent: its route is its walk's to give. So is one whose node cannot be reached because it
    does not say where, or says that it is here: forwarding to oneself would go round in a circle.
    """
    if owner is None or owner.state == "purged":
        return Nobody()
    if owner.state in _DOWN:
        return Absent(owner.state)
    if owner.node == me:
        return Absent("starting")
    if lease is None or liveness.session_over(lease, owner.session):
        return Absent("failover")
    if not lease.gateway_url or lease.gateway_url == my_url:
        return Absent("no_gateway")
    return Elsewhere(owner.node, owner.session, lease.gateway_url)
