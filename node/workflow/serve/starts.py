"""Starting runs: by whose id, and what happens when a run has that id already."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias, get_args

from node.workflow.core.definition import Workflow
from node.workflow.errors import InputConflict, InvalidInput, NotStorable, RunClosed, RunExists, UnknownWorkflow
from node.workflow.serve.executive import Executive
from node.workflow.serve.loaded import Item, new_run
from node.workflow.values.attributes import check_attributes
from node.workflow.values.dataclass import dataclass
from node.workflow.values.events import Draft, Kind
from node.workflow.values.payload import digest, encode
from node.workflow.values.run import CLOSED, NO_FACTS, RunFacts, RunRow, Started

Conflict: TypeAlias = Literal[
    "reject_different",  # the same workflow and input is the run that exists, another is InputConflict
    "use_existing",  # the run that exists is the answer, whatever it was started with
    "reject_duplicate",  # RunExists, whatever it was started with
    "allow_duplicate_failed_only",  # one that failed, or was cancelled or terminated, makes room; else as by default
    "allow_duplicate",  # one that has ended makes room; else as by default
    "terminate_existing",  # one that is open is terminated; then it makes room
]
CONFLICTS: Final[tuple[Conflict, ...]] = get_args(Conflict)


@dataclass(frozen=True, slots=True)
class Start:
    """A start, checked. `text` is the input as JSON."""

    definition: Workflow
    run_id: str
    text: str
    facts: RunFacts
    conflict: Conflict

    @property
    def input_hash(self) -> str:
        """What tells one input from another."""
        return digest(self.text)


class Starts:
    """Starts runs on an executive. `confirmed` waits until a commit is durable; `terminate` ends a run at once."""

    def __init__(
        self,
        executive: Executive,
        definitions: Mapping[str, Workflow],
        confirmed: Callable[[str, int], Awaitable[None]],
        terminate: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self._executive = executive
        self._definitions = definitions
        self._confirmed = confirmed
        self._terminate = terminate
        self._under_way: dict[str, asyncio.Future[int]] = {}

    def checked(
        self,
        workflow: str,
        input_json: Any,
        run_id: str,
        conflict: Conflict,
        queue: str | None,
        queue_key: str | None,
        priority: int,
        attributes: Mapping[str, Any] | None,
        schedule: str | None = None,
    ) -> Start:
        """A start that can be carried out. Raises UnknownWorkflow or InvalidInput."""
        definition = self._definitions.get(workflow)
        if definition is None:
            raise UnknownWorkflow(workflow, tuple(self._definitions))
        if conflict not in CONFLICTS:
            raise InvalidInput("conflict", f"one of {', '.join(CONFLICTS)}")
        try:
            text = encode(input_json, "input")
        except NotStorable as error:
            raise InvalidInput("input", str(error)) from None
        definition.arguments(json.loads(text))
        facts = NO_FACTS
        if queue is not None:
            facts = self._executive.admission.facts(queue, queue_key, priority)
        elif queue_key is not None or priority:
            raise InvalidInput("queue", "queue_key and priority mean nothing without a queue")
        if attributes:
            check_attributes(attributes)
            kept = {name: value for name, value in attributes.items() if value is not None}
            facts = replace(facts, attributes=encode(kept) if kept else None)
        if schedule is not None:
            facts = replace(facts, schedule=schedule)
        return Start(definition, run_id, text, facts, conflict)

    async def start(self, start: Start) -> Started:
        """Carry it out; returns once it is durable. Raises InputConflict, RunExists, NotRecorded, Unconfirmed."""
        while (other := self._under_way.get(start.run_id) or self._executive.post.arriving(start.run_id)) is not None:
            await asyncio.wait([other])  # another call with this id is on its way into the file
        row = self._executive.store.row(start.run_id)
        if row is not None and not _makes_room(start, row):
            _check_same(start, row)
            await self._confirmed(start.run_id, self._executive.writer.commits)
            return Started(start.run_id, created=False)
        if row is not None and row.state not in CLOSED:
            with contextlib.suppress(RunClosed):  # it ended by itself meanwhile: as good
                await self._terminate(start.run_id, "another run was started with its id")
            return await self.start(start)
        if row is not None and self._executive.ends.is_hidden(start.run_id):
            await self._executive.ends.wait(start.run_id, closed=True)
            return await self.start(start)
        archived = None if row is None else self._free_id(start.run_id)
        recorded = self._under_way[start.run_id] = asyncio.get_running_loop().create_future()
        recorded.add_done_callback(lambda _: self._under_way.pop(start.run_id, None))
        try:
            loaded = new_run(
                start.definition, start.run_id, start.input_hash, self._executive.now_ms(), start.facts, archived
            )
            self._executive.add(loaded)
            self._executive.send(loaded, Item(Draft(Kind.STARTED, _started(start), start.text), recorded))
        except BaseException:
            recorded.cancel()
            raise
        await self._confirmed(start.run_id, await asyncio.shield(recorded))
        return Started(start.run_id, created=True)

    def _free_id(self, run_id: str) -> str:
        if self._executive.store.has_open_children(run_id):
            raise InputConflict(run_id, "children that are still open, so it keeps its id until they have ended")
        number = 1
        while self._executive.store.row(f"{run_id}~{number}") is not None:
            number += 1
        return f"{run_id}~{number}"


def _started(start: Start) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": start.definition.name, "seed": secrets.token_hex(8)}
    if start.facts.queue is not None:
        facts["queue"] = start.facts.queue
    if start.facts.attributes is not None:
        facts["attributes"] = json.loads(start.facts.attributes)
    return facts


def _makes_room(start: Start, row: RunRow) -> bool:
    """Whether the run that exists gives its id away. Part of something bigger never does."""
    if row.facts.parent is not None or row.state == "continued":
        return False
    match start.conflict:
        case "terminate_existing":
            return True
        case "allow_duplicate":
            return row.state in CLOSED
        case "allow_duplicate_failed_only":
            return row.state in ("failed", "cancelled", "terminated")
        case _:
            return False


def _check_same(start: Start, row: RunRow) -> None:
    if start.conflict == "use_existing":
        return
    if start.conflict == "reject_duplicate":
        raise RunExists(row.id, row.state)
    if row.name != start.definition.name:
        raise InputConflict(row.id, f"workflow {row.name!r}")
    if row.input_hash != start.input_hash:
        raise InputConflict(row.id, "another input")
