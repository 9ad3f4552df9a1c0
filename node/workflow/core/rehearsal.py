"""Runs a history against code, with no side effect: does this code fit what is recorded?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from node.workflow.core.definition import Workflow
from node.workflow.core.machine import Machine
from node.workflow.values.dataclass import dataclass
from node.workflow.values.events import Event

Verdict: TypeAlias = Literal["fits", "does not fit"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay. `problem` says why the code does not fit, with both sides and the line; None: it fits."""

    run_id: str
    workflow: str
    events: int
    problem: str | None = None

    @property
    def verdict(self) -> Verdict:
        """In words."""
        return "fits" if self.problem is None else "does not fit"


def replay(history: Sequence[Event], definition: Workflow, run_id: str = "replay") -> Replayed:
    """Run `history` against `definition`; no activity runs and nothing is written. Never raises for code that does not
    fit: ask `problem`.
    """
    machine = Machine(definition, run_id)
    problem = None
    try:
        machine.replay(history)
    except Exception as error:  # noqa: BLE001 - the code doesn't fit, whichever way it shows
        problem = f"{type(error).__name__}: {error}"
    finally:
        machine.close()
    return Replayed(run_id, definition.name, len(history), problem)
