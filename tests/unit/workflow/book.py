"""A log in memory, written the way the engine writes one: what the pure core is tested with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from node.workflow.core.command import Command
from node.workflow.core.definition import Workflow
from node.workflow.core.machine import Machine
from node.workflow.values.events import Draft, Event, Kind
from node.workflow.values.payload import encode

START_MS = 1_700_000_000_000


class Book:
    """One run: every input is recorded, fed, and followed by what the code then asks for."""

    def __init__(self, definition: Workflow, input_json: Any = None, run_id: str = "r1") -> None:
        self.definition = definition
        self.machine = Machine(definition, run_id)
        self.events: list[Event] = []
        self.now_ms = START_MS
        self.add(Kind.STARTED, {"name": definition.name, "seed": "s"}, input_json)

    def add(self, kind: Kind, facts: dict[str, Any], payload: Any = ...) -> list[Command]:
        """Record an input; returns the commands that follow from it."""
        draft = Draft(kind, facts, None if payload is ... else encode(payload))
        event = self._put(draft)
        self.machine.feed(event)
        commands = self.machine.take_commands()
        for command in commands:
            self._put(command.draft())
        return commands

    def completed(self, step: int, result: Any = None) -> list[Command]:
        return self.add(Kind.ACTIVITY_COMPLETED, {"id": step, "attempt": 1}, result)

    def failed(self, step: int, type: str = "ValueError", message: str = "no") -> list[Command]:
        error = {"type": type, "message": message}
        return self.add(Kind.ACTIVITY_FAILED, {"id": step, "attempt": 2, "error": error})

    def fired(self, step: int) -> list[Command]:
        self.now_ms = max(self.now_ms, self.machine.pending[step].due_ms or 0)
        return self.add(Kind.TIMER_FIRED, {"id": step})

    def signalled(self, name: str, payload: Any = None) -> list[Command]:
        return self.add(Kind.SIGNAL_RECEIVED, {"name": name}, payload)

    def cancelled(self) -> list[Command]:
        return self.add(Kind.CANCEL_REQUESTED, {})

    @property
    def kinds(self) -> list[str]:
        return [str(e.kind) for e in self.events]

    @property
    def result(self) -> Any:
        assert self.machine.end is not None
        assert self.machine.end.kind is Kind.COMPLETED, self.machine.end
        return json.loads(self.machine.end.payload or "null")

    def _put(self, draft: Draft) -> Event:
        self.now_ms += 1
        event = draft.event(len(self.events) + 1, self.now_ms)
        self.events.append(event)
        return event


def replay(definition: Workflow, events: Iterable[Event], run_id: str = "r1") -> Machine:
    """A machine that has been fed a history."""
    machine = Machine(definition, run_id)
    machine.replay(list(events))
    return machine
