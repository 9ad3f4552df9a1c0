"""What one run has for another: starts, signals, cancellations, and how a child ended.

A letter is written in the same transaction as the event it follows from, and removed in the one that records it at its
target, so it arrives exactly once, whenever a process dies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from node.workflow.core.command import Command
from node.workflow.values.dataclass import dataclass
from node.workflow.values.events import Draft, Kind
from node.workflow.values.payload import encode, short_digest
from node.workflow.values.run import RunRow

LetterKey: TypeAlias = tuple[str, int, str]  # sender, its step, target
LetterRow: TypeAlias = tuple[str, int, str, str, str, str | None]


@dataclass(frozen=True, slots=True)
class Letter:
    """An input for `target`, which is step `step` of `sender` (0: its end). `payload` is JSON text.

    Steps, and not events, name a letter: a run that goes on for another of its id counts them on.
    """

    sender: str
    step: int
    target: str
    kind: str
    facts: Mapping[str, Any]
    payload: str | None = None

    @property
    def key(self) -> LetterKey:
        """What it is found by in the file."""
        return self.sender, self.step, self.target

    @property
    def dies_with_sender(self) -> bool:
        """Whether it starts a child that does not outlive its parent: it never begins once that has closed."""
        return self.kind == Kind.STARTED and self.facts["on_parent_close"] != "abandon"

    def draft(self) -> Draft:
        """The event it becomes at its target."""
        return Draft(self.kind, self.facts, self.payload)

    def row(self) -> LetterRow:
        """As the file keeps it."""
        return self.sender, self.step, self.target, self.kind, encode(self.facts), self.payload


def read(row: LetterRow) -> Letter:
    """A letter from the file."""
    sender, step, target, kind, facts, payload = row
    return Letter(sender, step, target, kind, json.loads(facts), payload)


def of_command(run_id: str, command: Command, seed: str) -> Letter | None:
    """What a command of a run has for another run."""
    match command.kind:
        case Kind.CHILD_STARTED:
            facts = {
                "name": command.name,
                "seed": short_digest(f"{seed} child {command.id}"),
                "parent": run_id,
                "parent_step": command.id,
                "on_parent_close": command.facts["on_parent_close"],
            }
            return Letter(run_id, command.id, command.facts["child"], Kind.STARTED, facts, command.payload)
        case Kind.SIGNAL_SENT:
            facts = {"name": command.name, "sender": run_id}
            return Letter(run_id, command.id, command.facts["run"], Kind.SIGNAL_RECEIVED, facts, command.payload)
        case Kind.CANCEL_SENT:
            return Letter(run_id, command.id, command.facts["run"], Kind.CANCEL_REQUESTED, {"sender": run_id})
    return None


def of_end(row: RunRow, result: str | None) -> Letter | None:
    """What an ended run has for its parent."""
    parent, step = row.facts.parent, row.facts.parent_step
    if parent is None or step is None or row.state == "continued":
        return None
    if row.state == "completed":
        return Letter(row.id, 0, parent, Kind.CHILD_COMPLETED, {"id": step}, result)
    found = json.loads(row.error) if row.error else {}
    error = {"type": found.get("type", row.state), "message": found.get("message", f"the child was {row.state}")}
    return Letter(row.id, 0, parent, Kind.CHILD_FAILED, {"id": step, "state": row.state, "error": error})


def refusal(letter: Letter, error: Exception) -> Letter:
    """What the sender of a start gets back, in place of it, when the child can't be started."""
    facts = {
        "id": letter.facts["parent_step"],
        "state": "refused",
        "error": {"type": type(error).__name__, "message": str(error)},
    }
    return Letter(letter.sender, letter.step, letter.sender, Kind.CHILD_FAILED, facts)
