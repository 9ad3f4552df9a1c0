"""A history in, what to do next out, in one call: the pure core as a function."""

from __future__ import annotations

from collections.abc import Sequence

from node.workflow.core.command import Command
from node.workflow.core.definition import Workflow
from node.workflow.core.machine import Machine
from node.workflow.values.dataclass import dataclass
from node.workflow.values.events import Event


@dataclass(frozen=True, slots=True)
class Step:
    """What `step` decides: commands to record, the ids of timers to fire, and how the run ended, if it did."""

    commands: tuple[Command, ...]
    due: tuple[int, ...]
    end: Command | None


def step(history: Sequence[Event], definition: Workflow, run_id: str, now_ms: int) -> Step:
    """What is to be done after `history` at `now_ms` (unix time, milliseconds). Raises Mismatch or ForeignAwait."""
    machine = Machine(definition, run_id)
    try:
        machine.replay(history)
        due = tuple(i for i, s in machine.pending.items() if s.due_ms is not None and s.due_ms <= now_ms)
        return Step(tuple(machine.take_commands()), due, machine.end)
    finally:
        machine.close()
