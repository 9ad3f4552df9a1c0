"""The state that a tenant is shown in: one table from what is wanted and what was seen, and a sentence per reason.

A node's report says what is; the table says what it means for what is wanted. What the table leaves empty cannot be,
and raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fleet.core.model import Evidence
from node.api import TenantState

Want: TypeAlias = Literal["up", "down", "purged"]
# What was seen: a state that a node reports, or what the owner record says while no node reports.
Sign: TypeAlias = Literal[
    "reported pending", "reported claiming", "reported restoring", "reported starting", "reported running",
    "reported frozen", "reported stopping", "reported released", "reported hibernated", "reported failed",
    "reported lost", "reported damaged", "reported purged",
    "no record", "owner claimed", "owner running", "owner released", "owner hibernated", "owner lost", "owner damaged",
    "owner purged", "node over",
]  # fmt: skip

SETTLED: dict[Want, frozenset[TenantState]] = {
    "up": frozenset({"running", "hibernated"}),
    "down": frozenset({"released"}),
    "purged": frozenset({"purged"}),
}

# Reasons of the controller's own; a node's report brings its own reason and message.
REASONS: dict[str, str] = {
    "": "",
    "placing": "it is being placed on a node",
    "assigning": "its node has not taken up the change yet",
    "awaiting_report": "its node has not reported on it yet",
    "node_over": "its node's session is over; it is brought up again from the bucket",
    "node_lost": "nothing of it runs, as its node's session is over; the next up goes on from its volume or the bucket",
    "node_unreachable": "its node's agent does not answer; what is shown is the last that is known",
    "node_overdue": "its node has not renewed its lease in time: it stands still there until the node is back, or is "
    "brought up elsewhere once that session is over",
    "no_data": "it never held any data",
    "deleting": "its data is deleted once it is due",
    "deleted": "its data is deleted",
    "no_node": "no node can take it",
    "no_room": "no node has room for it",
    "refused": "its node refused the assignment",
    "unsent": "its node could not be told",
    "secrets": "its secrets could not be read",
    "error": "the controller failed on it",
}


_FAILURES = frozenset({"refused", "secrets", "error"})


@dataclass(frozen=True, slots=True)
class Row:
    """`state` None: as reported. `reason` empty: the report's."""

    state: TenantState | None
    reason: str = ""


_AS_IS = Row(None)
_ASSIGNING = Row("pending", "assigning")

TABLE: dict[tuple[Want, Sign], Row] = {
    ("up", "reported pending"): _AS_IS,
    ("up", "reported claiming"): _AS_IS,
    ("up", "reported restoring"): _AS_IS,
    ("up", "reported starting"): _AS_IS,
    ("up", "reported running"): _AS_IS,
    ("up", "reported frozen"): _AS_IS,
    ("up", "reported stopping"): _AS_IS,
    ("up", "reported released"): _ASSIGNING,
    ("up", "reported hibernated"): _AS_IS,
    ("up", "reported failed"): _AS_IS,
    ("up", "reported lost"): _AS_IS,
    ("up", "reported damaged"): _AS_IS,
    ("up", "reported purged"): _ASSIGNING,
    ("up", "no record"): Row("pending", "placing"),
    ("up", "owner claimed"): Row("pending", "awaiting_report"),
    ("up", "owner running"): Row("pending", "awaiting_report"),
    ("up", "owner released"): Row("pending", "placing"),
    ("up", "owner hibernated"): Row("hibernated"),
    ("up", "owner lost"): Row("lost"),
    ("up", "owner damaged"): Row("damaged"),
    ("up", "owner purged"): Row("pending", "placing"),
    ("up", "node over"): Row("pending", "node_over"),
    ("down", "reported pending"): Row("released"),
    ("down", "reported claiming"): _AS_IS,
    ("down", "reported restoring"): _AS_IS,
    ("down", "reported starting"): _AS_IS,
    ("down", "reported running"): Row("stopping", "assigning"),
    ("down", "reported frozen"): _AS_IS,
    ("down", "reported stopping"): _AS_IS,
    ("down", "reported released"): _AS_IS,
    ("down", "reported hibernated"): Row("released"),
    ("down", "reported failed"): _AS_IS,
    ("down", "reported lost"): _AS_IS,
    ("down", "reported damaged"): _AS_IS,
    ("down", "reported purged"): Row("released"),
    ("down", "no record"): Row("released", "no_data"),
    ("down", "owner claimed"): Row("stopping", "awaiting_report"),
    ("down", "owner running"): Row("stopping", "awaiting_report"),
    ("down", "owner released"): Row("released"),
    ("down", "owner hibernated"): Row("released"),
    ("down", "owner lost"): Row("lost"),
    ("down", "owner damaged"): Row("damaged"),
    ("down", "owner purged"): Row("released", "no_data"),
    ("down", "node over"): Row("released", "node_lost"),
    ("purged", "reported pending"): Row("stopping", "assigning"),
    ("purged", "reported claiming"): Row("stopping", "assigning"),
    ("purged", "reported restoring"): Row("stopping", "assigning"),
    ("purged", "reported starting"): Row("stopping", "assigning"),
    ("purged", "reported running"): Row("stopping", "assigning"),
    ("purged", "reported frozen"): _AS_IS,
    ("purged", "reported stopping"): _AS_IS,
    ("purged", "reported released"): Row("stopping", "assigning"),
    ("purged", "reported hibernated"): Row("stopping", "assigning"),
    ("purged", "reported failed"): Row("stopping", "assigning"),
    ("purged", "reported lost"): Row("stopping", "assigning"),
    ("purged", "reported damaged"): Row("stopping", "assigning"),
    ("purged", "reported purged"): Row("purged", "deleting"),
    ("purged", "no record"): Row("purged", "no_data"),
    ("purged", "owner claimed"): Row("stopping", "awaiting_report"),
    ("purged", "owner running"): Row("stopping", "awaiting_report"),
    ("purged", "owner released"): Row("stopping", "assigning"),
    ("purged", "owner hibernated"): Row("stopping", "assigning"),
    ("purged", "owner lost"): Row("stopping", "assigning"),
    ("purged", "owner damaged"): Row("stopping", "assigning"),
    ("purged", "owner purged"): Row("purged", "deleting"),
    ("purged", "node over"): Row("stopping", "assigning"),
}


@dataclass(frozen=True, slots=True)
class Status:
    """What is shown: a state, one token why, and a sentence."""

    state: TenantState
    reason: str
    message: str


def sign_of(seen: Evidence) -> Sign:
    """What was seen, as the table names it."""
    if seen.hold == "over":
        return "node over"
    if seen.report is not None:
        return f"reported {seen.report.state}"  # type: ignore[return-value] # an f-string of a Literal is a str
    if seen.owner_state is None:
        return "no record"
    return f"owner {seen.owner_state}"  # type: ignore[return-value] # an f-string of a Literal is a str


def status(want: Want, seen: Evidence, note: tuple[str, str] | None, *, done: bool = True) -> Status:
    """The state to show. `note` is (reason, message) of why the controller could not go on, if so; `done` whether the
    node has carried out the newest generation: until then a note matters also of a tenant that runs."""
    try:
        row = TABLE[want, sign_of(seen)]
    except KeyError:
        raise ValueError(f"no state for want {want!r} and {sign_of(seen)!r}") from None
    report = seen.report
    state = row.state or (report.state if report is not None else "pending")
    reason, message = row.reason, REASONS[row.reason]
    if report is not None and not row.reason:
        reason, message = report.reason, report.message
    if seen.hold == "away":
        reason = "node_overdue" if seen.overdue else "node_unreachable"
        message = REASONS[reason]
        state = "frozen" if seen.overdue and state == "running" else state
    if note is not None and (state not in SETTLED[want] or not done):
        reason, message = note
        state = "failed" if reason in _FAILURES and state == "pending" else state
    return Status(state, reason, message)
