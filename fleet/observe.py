"""Watches what changes about tenants: events, counts by state, and how operations end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleet.core.actions import Action, Park
from fleet.core.lifecycle import Status, status
from fleet.core.model import Evidence, observed
from fleet.desk import gone
from fleet.events import Events
from fleet.metrics import Metrics
from fleet.world import World
from node.bucket.records import Spec

_OVER = {
    "lease_expired": "node {node} did not renew its lease, and its session was ended",
    "node_gone": "the session of node {node} is over",
    "later_session": "node {node} began a later session",
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """An operation under way: which, its generation, and when it was asked for (unix time)."""

    kind: str
    generation: int
    began: float


@dataclass(frozen=True, slots=True)
class _Shown:
    status: Status
    behind: bool
    warnings: tuple[str, ...]


class Observer:
    """`look` at a tenant after each change of it. Memory only: what it says can be said again."""

    def __init__(self, world: World, events: Events, metrics: Metrics, acts: Callable[[], bool]) -> None:
        self._acts = acts
        self._world = world
        self._events = events
        self._metrics = metrics
        self._shown: dict[str, _Shown] = {}
        self._specs: dict[str, Spec] = {}
        self._operations: dict[str, _Operation] = {}
        self._over: set[str] = set()

    def status(self, tenant: str) -> Status:
        """What is shown of a tenant now."""
        spec = self._world.specs[tenant]
        return self._status(spec, self._world.evidence(tenant))

    def _status(self, spec: Spec, seen: Evidence) -> Status:
        done = observed(spec, seen, self._world.owners.get(spec.tenant)) >= spec.generation
        return status(spec.want, seen, self._world.notes.get(spec.tenant), done=done)

    def observed(self, tenant: str) -> int:
        """The last generation of a tenant that was carried out or given up."""
        return observed(self._world.specs[tenant], self._world.evidence(tenant), self._world.owners.get(tenant))

    def counts(self) -> Mapping[str, int]:
        """Tenants by state, but those purged to the end."""
        return Counter(self.status(t).state for t, spec in self._world.specs.items() if not gone(spec))

    def look(self, tenant: str) -> None:
        """Say what changed about a tenant."""
        spec = self._world.specs.get(tenant)
        if spec is None:
            return
        self._asked(spec)
        seen = self._world.evidence(tenant)
        now = self._status(spec, seen)
        report = seen.report
        shown = _Shown(now, report.behind if report else False, report.warnings if report else ())
        before = self._shown.get(tenant)
        found = before is None and tenant in self._world.at_start
        if not found or now.reason != "awaiting_report":
            self._shown[tenant] = shown
        if not found:  # how things were when this controller began is no event
            self._say(spec, before, shown, seen.node)
        self._failover(spec, seen)
        self._ended(spec, now)

    def parked(self, todo: Sequence[Action]) -> bool:
        """Note a tenant that nobody can have; whether that was all there is to do."""
        if len(todo) == 1 and isinstance(todo[0], Park):
            park = todo[0]
            if self._world.notes.get(park.tenant) != (park.reason, park.message):
                self._world.note(park.tenant, park.reason, park.message)
                self._events.emit("parked", park.message, tenant=park.tenant, reason=park.reason)
                self.look(park.tenant)
            return True
        return False

    def _say(self, spec: Spec, before: _Shown | None, shown: _Shown, node: str | None) -> None:
        old, new = before.status if before else None, shown.status
        if (old is None and new.state != "pending") or (old is not None and old.state != new.state):
            text = f"{spec.tenant} is {new.state}" + (f": {new.message}" if new.message else "")
            self._events.emit(
                "state",
                text,
                tenant=spec.tenant,
                node=node,
                generation=spec.generation,
                state=new.state,
                reason=new.reason,
            )
        if shown.behind != (before.behind if before else False):
            text = f"replication of {spec.tenant} " + ("is behind" if shown.behind else "has caught up")
            self._events.emit("behind", text, tenant=spec.tenant, node=node)
        for warning in shown.warnings:
            if before is None or warning not in before.warnings:
                self._events.emit("warning", warning, tenant=spec.tenant, node=node)

    def _asked(self, spec: Spec) -> None:
        """Note a new generation as an operation under way, named by what is different."""
        old = self._specs.get(spec.tenant)
        self._specs[spec.tenant] = spec
        if old is not None and old.generation == spec.generation:
            return
        running = self._operations.pop(spec.tenant, None)
        if running is not None:
            outcome = "rolled_back" if spec.rolled_back == running.generation else "superseded"
            self._finish(running, outcome)
            if outcome == "rolled_back":
                return
        if old is None and self.observed(spec.tenant) >= spec.generation:
            return
        self._operations[spec.tenant] = _Operation(_kind(old, spec), spec.generation, spec.updated_at)

    def _ended(self, spec: Spec, now: Status) -> None:
        running = self._operations.get(spec.tenant)
        if running is None or self.observed(spec.tenant) < running.generation:
            return
        del self._operations[spec.tenant]
        self._finish(running, "failed" if now.state in ("failed", "lost", "damaged") else "done")

    def _finish(self, operation: _Operation, outcome: str) -> None:
        if not self._acts():  # every controller sees it end: counted once
            return
        self._metrics.operations.labels(operation.kind, outcome).inc()
        took = max(0.0, self._world.clock() - operation.began)
        self._metrics.operation_duration.labels(operation.kind).observe(took)

    def _failover(self, spec: Spec, seen: Evidence) -> None:
        tenant, over = spec.tenant, seen.hold == "over" and spec.want == "up"
        if not over:
            self._over.discard(tenant)
        elif tenant not in self._over:
            self._over.add(tenant)
            reason = self._why_over(seen.node or "")
            if self._acts():  # whoever acts places it: counted once
                self._metrics.failovers.labels(reason).inc()
            text = f"{tenant} is brought up again from the bucket: {_OVER[reason].format(node=seen.node)}"
            self._events.emit("failover", text, tenant=tenant, node=seen.node, reason=reason)

    def _why_over(self, node: str) -> str:
        machine = self._world.machines.get(node)
        if machine is None or machine.state != "gone":
            return "later_session"
        return "lease_expired" if self._world.revoked.get(node) == machine.session else "node_gone"


def _kind(old: Spec | None, new: Spec) -> str:
    if new.want == "purged":
        return "purge"
    if new.want == "down":
        return "down"
    if new.restore is not None and (old is None or old.restore != new.restore):
        return "restore"
    if old is not None and old.want == "up" and old.restarts != new.restarts:
        return "restart"
    return "up"
