"""Tenants that leave a machine: a few at a time, each only once there is a place for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fleet.core.model import Evidence, Is, Move, Sent, evidence
from fleet.core.placement import NoPlace, place
from fleet.core.rooms import Rooms
from node.bucket.records import Spec

_BROKEN = frozenset({"failed", "lost", "damaged"})


@dataclass(frozen=True, slots=True)
class Leaving:
    """A tenant that a drained machine still has, or that is on its way from it. `to`: where, if that is known."""

    tenant: str
    stage: Literal["waiting", "moving", "stuck"]
    to: str | None
    reason: str = ""
    message: str = ""


def under_way(spec: Spec, seen: Evidence, sent: Sent | None) -> bool:
    """Whether a move was begun and the tenant has not arrived. One that was well and is not where it went to has not:
    it keeps its turn, so that a machine where nothing comes up is not given all the others as well.
    """
    if sent is None or sent.move is None or sent.generation != spec.generation or spec.want != "up":
        return False
    if seen.node != sent.move.target or seen.hold not in ("live", "away") or seen.report is None:
        return seen.hold != "over"
    well = seen.report.state == "running" or (seen.report.state in _BROKEN and spec.proven < spec.generation)
    return not well


def begun(spec: Spec, node: str, sent: Sent | None) -> Move | None:
    """The way that a tenant which this machine still has was sent on."""
    if sent is None or sent.move is None or sent.want != "down":
        return None
    return sent.move if sent.move.source == node and sent.generation == spec.generation else None


def arriving(spec: Spec, node: str, sent: Sent | None) -> Move | None:
    """The way that a tenant came to this machine on, if that is where it was last sent to: told again, it keeps its
    turn."""
    if sent is None or sent.move is None or sent.want != "up":
        return None
    return sent.move if sent.move.target == node and sent.generation == spec.generation else None


class Turns:
    """Who is between two machines, by the one that they leave; counted when it is first asked for."""

    def __init__(self, should: Mapping[str, Spec], is_: Is) -> None:
        self._should = should
        self._is = is_
        self._off: dict[str, set[str]] | None = None

    def free(self, node: str, at_once: int) -> bool:
        """Whether one more may leave this machine."""
        return len(self._of(node)) < at_once

    def take(self, node: str, tenant: str) -> None:
        """One more leaves it in this pass."""
        self._of(node).add(tenant)

    def _of(self, node: str) -> set[str]:
        if self._off is None:
            self._off = {}
            for tenant, sent in {**self._is.sent, **self._is.sending}.items():
                spec = self._should.get(tenant)
                if sent.move is None or spec is None or not under_way(spec, evidence(tenant, self._is), sent):
                    continue
                self._off.setdefault(sent.move.source, set()).add(tenant)
        return self._off.setdefault(node, set())


def destination(spec: Spec, seen: Evidence, is_: Is, rooms: Rooms) -> tuple[str, str] | str:
    """Where a tenant of a machine that is drained goes to, or (reason, message) of why it can't go."""
    tenant, node = spec.tenant, seen.node
    if spec.spec.node == node:
        return "pinned", f"its spec asks for node {node}: change that with `fleet up {tenant} --node N`"
    if seen.report is not None and seen.report.state in ("lost", "damaged"):
        return seen.report.state, seen.report.message or f"its data is {seen.report.state}"
    machine = is_.machines.get(node or "")
    if machine is None or not machine.reachable:
        return "node_unreachable", f"the agent of node {node} does not answer: nobody can confirm its last byte"
    found = place(spec.spec, is_.machines, rooms.without(tenant), None)
    return (found.reason, found.message) if isinstance(found, NoPlace) else found.node


def leaving(node: str, should: Mapping[str, Spec], is_: Is) -> tuple[Leaving, ...]:
    """What a drain of this machine has still to do, by tenant's name."""
    rooms = Rooms(should, is_)
    found = []
    for tenant in sorted(should):
        spec, sent = should[tenant], is_.told(tenant)
        if spec.want != "up":
            continue
        seen = evidence(tenant, is_)
        if sent is not None and sent.move is not None and sent.move.source == node and under_way(spec, seen, sent):
            found.append(_moving(tenant, seen, sent.move.target))
        elif seen.node == node and seen.hold in ("live", "away"):
            found.append(_staying(spec, seen, is_, rooms))
    return tuple(found)


def _moving(tenant: str, seen: Evidence, target: str) -> Leaving:
    report = seen.report
    broken = report is not None and report.state in _BROKEN and seen.node == target
    message = f"{report.state}: {report.message}".removesuffix(": ") if report is not None else ""
    return Leaving(
        tenant, "stuck" if broken else "moving", target, report.reason if report is not None else "", message
    )


def _staying(spec: Spec, seen: Evidence, is_: Is, rooms: Rooms) -> Leaving:
    found = destination(spec, seen, is_, rooms)
    if isinstance(found, str):
        return Leaving(spec.tenant, "waiting", found)
    return Leaving(spec.tenant, "stuck", None, *found)
