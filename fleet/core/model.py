"""What is: machines, owner records, reports, what was sent. What should be are the `Spec` records themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from node.api import TenantReport, TenantState
from node.bucket import liveness
from node.bucket.records import Capacity, Owner, Spec

# States in which a node has a tenant's data in custody, or is taking it.
HOLDING: frozenset[TenantState] = frozenset(
    {"claiming", "restoring", "starting", "running", "frozen", "stopping", "failed", "lost", "damaged"}
)
_OWNER_HOLDING = frozenset({"claimed", "running", "lost", "damaged"})


@dataclass(frozen=True, slots=True)
class Machine:
    """A node by its lease and its agent. `reachable`: the agent answers; `cordoned`: takes no new tenant; `drain`: how
    many of its tenants it gives away at a time, 0 if it keeps them; `overdue`: its lease was not renewed in time, so it
    stands still or is no more, and its session is not ended yet.
    """

    name: str
    session: int
    state: Literal["active", "draining", "gone"]
    mode: Literal["solo", "shared"]
    capacity: Capacity
    labels: Mapping[str, str]
    reachable: bool
    fenced: bool = False
    cordoned: bool = False
    drain: int = 0
    overdue: bool = False

    @property
    def usable(self) -> bool:
        """Whether a tenant may be placed here now."""
        return self.reachable and self.state == "active" and not self.fenced and not self.cordoned


MachineState = Literal["ready", "cordoned", "fenced", "unreachable", "draining", "gone"]


def machine_state(machine: Machine) -> MachineState:
    """The state that a machine is shown in."""
    if machine.state == "gone":
        return "gone"
    if not machine.reachable:
        return "unreachable"
    if machine.fenced:
        return "fenced"
    if machine.state == "draining" or machine.drain:
        return "draining"
    return "cordoned" if machine.cordoned else "ready"


@dataclass(frozen=True, slots=True)
class Move:
    """A tenant's way from a machine that is drained to the one where a place was found for it."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The assignment that a node last acknowledged, at `at` (unix time). Memory only: it may be sent again."""

    node: str
    session: int
    generation: int
    want: str
    at: float
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class Is:
    """Everything that is known, by tenant or by node. Read-only views; nothing is copied for a pass.

    `sending` are assignments that may have reached a node, by tenant: no answer came yet, or none came in time.
    """

    machines: Mapping[str, Machine]
    owners: Mapping[str, Owner]
    reports: Mapping[str, Mapping[str, TenantReport]]
    sent: Mapping[str, Sent]
    # A purge that found nothing left: tenant → epoch.
    emptied: Mapping[str, int]
    sending: Mapping[str, Sent] = field(default_factory=dict)

    def told(self, tenant: str) -> Sent | None:
        """The last assignment that a node may know of."""
        return self.sending.get(tenant) or self.sent.get(tenant)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The best that is known of one tenant: where, at which epoch, in what state.

    `report` is None when only the owner record speaks. `hold` says what became of the node: `none` (nobody has it),
    `live`, `away` (its agent does not answer, its session may go on), `over` (its session is over). `overdue`: its
    lease was not renewed in time, and nothing on it may run.
    """

    node: str | None
    epoch: int
    owner_state: str | None
    report: TenantReport | None
    hold: Literal["none", "live", "away", "over"]
    overdue: bool = False


NOTHING = Evidence(None, 0, None, None, "none")


def session_over(machine: Machine | None, session: int) -> bool:
    """Whether this session of a machine is over: its lease says gone for it, or names a later one."""
    return machine is not None and liveness.session_over(machine, session)


def evidence(tenant: str, is_: Is) -> Evidence:
    """Weigh the owner record against the nodes' reports: the later epoch is right, at the same one the fresh report."""
    owner = is_.owners.get(tenant)
    reports = is_.reports.get(tenant)
    recorded = _recorded(owner, is_) if owner is not None else NOTHING
    if not reports:
        return recorded
    newest = max(report.epoch for report in reports.values())
    best: tuple[tuple[bool, int, bool], str] | None = None
    for node, report in reports.items():
        if report.epoch not in (0, newest) or not _speaks(report, node, owner, recorded):
            continue
        weight = (report.state in HOLDING, report.epoch, owner is not None and owner.node == node)
        if best is None or weight > best[0]:
            best = (weight, node)
    return recorded if best is None else _reported(best[1], reports[best[1]], owner, is_)


def _speaks(report: TenantReport, node: str, owner: Owner | None, recorded: Evidence) -> bool:
    """A report of an older epoch is history. One of the record's epoch counts from the node that the record names, or
    from one that has the tenant; one without an epoch is a claim under way, possible where nobody holds the tenant."""
    if owner is None or report.epoch > owner.epoch:
        return True
    if report.epoch == owner.epoch:
        return node == owner.node or report.state in HOLDING
    return report.epoch == 0 and report.state in HOLDING and recorded.hold in ("none", "over")


def _reported(node: str, report: TenantReport, owner: Owner | None, is_: Is) -> Evidence:
    machine = is_.machines.get(node)
    state = owner.state if owner else None
    epoch = max(report.epoch, owner.epoch if owner else 0)
    if report.state not in HOLDING:
        return Evidence(node, epoch, state, report, "none")
    if machine is None or machine.state == "gone":
        return Evidence(node, epoch, state, report, "over")
    return Evidence(node, epoch, state, report, "live" if machine.reachable else "away", machine.overdue)


def _recorded(owner: Owner, is_: Is) -> Evidence:
    machine = is_.machines.get(owner.node)
    if owner.state not in _OWNER_HOLDING:
        return Evidence(owner.node, owner.epoch, owner.state, None, "none")
    if session_over(machine, owner.session):
        return Evidence(owner.node, owner.epoch, owner.state, None, "over")
    live, overdue = machine is not None and machine.reachable, machine is not None and machine.overdue
    return Evidence(owner.node, owner.epoch, owner.state, None, "live" if live else "away", overdue)


def observed(spec: Spec, seen: Evidence, owner: Owner | None) -> int:
    """The last generation carried out or given up. `down` of a tenant that nobody has is carried out by itself.

    The owner record is ahead of the server's start, so it counts only where no node is to report. A spec that its node
    gave up for the one before is not carried out before the roll-back is written: nobody may take it for done.
    """
    if spec.want == "down" and seen.hold in ("none", "over"):
        return spec.generation
    if spec.want == "purged" and (spec.purge_after is None or tombstoned(seen)):
        return spec.generation
    if seen.report is not None:
        undoing = seen.report.rolled_back and spec.previous is not None
        return min(seen.report.observed_generation, spec.generation - undoing)
    if owner is not None and owner.state in ("hibernated", "lost", "damaged"):
        return min(owner.observed_generation, spec.generation)
    return 0


def tombstoned(seen: Evidence) -> bool:
    """Whether the tenant's owner record is a tombstone, as far as is known."""
    return seen.report.state == "purged" if seen.report is not None else seen.owner_state == "purged"


def holding(is_: Is, should: Mapping[str, Spec]) -> Iterator[tuple[str, str]]:
    """(tenant, node) of everything that takes room: held somewhere, or on its way there; a move takes it twice."""
    for tenant in should:
        seen = evidence(tenant, is_)
        if seen.hold in ("live", "away") and seen.node is not None:
            yield tenant, seen.node
        sent = is_.told(tenant)
        if sent is None:
            continue
        if seen.hold in ("none", "over") and sent.want == "up":
            yield tenant, sent.node
        if sent.move is not None and sent.want == "down":
            yield tenant, sent.move.target
