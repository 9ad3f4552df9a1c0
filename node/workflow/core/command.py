"""What workflow code asks for, and what of it has not ended yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from node.workflow.core.branches import Future
from node.workflow.core.definition import Activity, Workflow
from node.workflow.values.dataclass import dataclass
from node.workflow.values.describe import cut
from node.workflow.values.events import ENDS, Draft, Kind


@dataclass(frozen=True, slots=True)
class Command:
    """What the code asks for: recorded as an event of `kind`. `due_ms` is unix time in milliseconds."""

    id: int
    kind: Kind
    name: str
    hash: str
    payload: str | None = None
    due_ms: int | None = None
    error: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else is recorded of it

    def draft(self) -> Draft:
        """The event this is recorded as."""
        facts: dict[str, Any] = {} if self.kind in ENDS or self.kind is Kind.PATCHED else {"id": self.id}
        if self.name:
            facts["name"] = self.name
        if self.due_ms is not None:
            facts["due"] = self.due_ms
        facts |= self.facts
        if self.error is not None:
            facts["error"] = self.error
        facts["hash"] = self.hash
        return Draft(self.kind, facts, self.payload)

    def describe(self) -> str:
        """For the difference that blocks a run."""
        name = f" {self.name}" if self.name else ""
        payload = "" if self.payload is None else f" {cut(self.payload, 200)}"
        return f"{self.kind}{name} (hash {self.hash}){payload}"


@dataclass(slots=True)
class Pending:
    """A step that was asked for and has not ended. `failed_attempts` and `due_ms` follow the log."""

    command: Command
    future: Future
    activity: Activity[..., Any] | None = None
    child: Workflow[Any, Any] | str | None = None
    failed_attempts: int = 0
    due_ms: int | None = None
    scheduled_ms: int = 0  # when it was asked for

    def describe(self) -> str:
        """For the row of current state: `activity charge`, `signal approved`, `child c-7`, `timer`."""
        match self.command.kind:
            case Kind.ACTIVITY_SCHEDULED:
                retry = f", attempt {self.failed_attempts + 1}" if self.failed_attempts else ""
                return f"activity {self.command.name}{retry}"
            case Kind.SIGNAL_AWAITED:
                return f"signal {self.command.name}"
            case Kind.CHILD_STARTED:
                return f"child {self.command.facts['child']}"
            case _:
                return self.command.name or "timer"
