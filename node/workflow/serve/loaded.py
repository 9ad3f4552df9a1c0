"""A run in memory: its machine and what is on its way to it. Decides what to append; does no I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import field, replace
from itertools import islice
from typing import Any, Final

from node.workflow.core.definition import Workflow
from node.workflow.core.letters import Letter, LetterKey, of_command, of_end
from node.workflow.core.machine import Machine
from node.workflow.errors import ContinuesForEver, Mismatch, NotOpen, RunClosed, UnknownWorkflow, WorkflowError
from node.workflow.log.page import Page
from node.workflow.log.writer import Append
from node.workflow.values.dataclass import dataclass
from node.workflow.values.events import Draft, Event, Kind
from node.workflow.values.payload import digest, encode, short_digest
from node.workflow.values.run import CLOSED, NO_FACTS, Heartbeat, RunFacts, RunRow, State

WAITS_SHOWN: Final = 20
MOST_CONTINUED: Final = 20  # times in a row, without waiting for anything
# What is recorded of a run whose code does not fit, for the code that will.
KEPT_WHILE_BLOCKED: Final = frozenset({Kind.STARTED, Kind.SIGNAL_RECEIVED, Kind.CHILD_COMPLETED, Kind.CHILD_FAILED})


@dataclass(slots=True)
class Item:
    """An input for a run. `recorded` hears the number of its commit, or why it is not recorded."""

    draft: Draft
    recorded: asyncio.Future[int] | None = None
    signal_id: str | None = None
    letter: LetterKey | None = None  # the letter that brought it

    def accept(self, commit: int) -> None:
        """Tell whoever waits that it is recorded in this commit."""
        if self.recorded is not None and not self.recorded.done():
            self.recorded.set_result(commit)

    def refuse(self, error: WorkflowError) -> None:
        """Tell whoever waits that it is not recorded."""
        if self.recorded is not None and not self.recorded.done():
            self.recorded.set_exception(error)


@dataclass(slots=True)
class Loaded:
    """One run. `machine` is None while it is blocked. Only one append is under way at a time (`writing`)."""

    row: RunRow
    machine: Machine | None
    timers: dict[int, int] = field(default_factory=dict)  # as they are in the file
    inbox: deque[Item] = field(default_factory=deque)
    writing: list[Item] | None = None
    in_flight: set[int] = field(default_factory=set)  # activities on their way to a result
    created: bool = True  # False until it is in the file
    archived: str | None = None  # the id that the run gets that had this one's until now
    commit: int = 0  # the number of the newest commit with something of this run
    counted: State | None = None  # the state it has in the statistics
    error: str | None = None  # why it is blocked, JSON
    failed_appends: int = 0  # in a row
    loading: bool = False  # its log is still being replayed
    heartbeats: dict[int, Heartbeat] = field(default_factory=dict)  # the newest of each activity that has one
    beaten: set[int] = field(default_factory=set)  # activities whose newest heartbeat is not in the file

    def advance(self, items: list[Item], now_ms: int, archive_id: Callable[[str, str | None], str]) -> Append | None:
        """Feed `items` to the machine. Returns what to append, None when nothing changed.

        Items that mean nothing any more are dropped; who waits for one of a closed run is told so. `archive_id` gives a
        free id for a run that goes on as new.
        """
        waiting = deque(items)
        before: Append | None = None
        for times in range(MOST_CONTINUED + 1):
            append = self._advance(waiting, now_ms)
            if append is None or append.run.state != "continued":
                return append if append is None or before is None else replace(append, before=before)
            before = replace(append, before=before)
            archived = archive_id(self.row.id, self.row.facts.continued_from)
            waiting.extendleft(reversed(self._go_on_as_new(archived)))
            if times == MOST_CONTINUED - 1:
                self.block(ContinuesForEver(self.row.id, MOST_CONTINUED))
        raise AssertionError("a blocked run does not continue")

    def _advance(self, waiting: deque[Item], now_ms: int) -> Append | None:
        page = Page(self.row.id, self.row.last_seq)
        at_ms = max(now_ms, self.row.updated_at)
        if self.machine is not None:
            self.machine.behind_ms = at_ms - now_ms
        state: State = "running"
        while waiting and not self._continues:
            item = waiting.popleft()
            if item.letter is not None:
                page.letters_gone.append(item.letter)
            if self.machine is None:
                state = self._unreplayed(item, page, at_ms) or state
            elif self.machine.expects(item.draft):
                self._feed(self.machine, item, page, at_ms)
            elif self.machine.end is not None:
                item.refuse(RunClosed(self.row.id, self.machine.end.kind))
        if self.machine is not None:
            self._take_commands(self.machine, page, at_ms)
        return self._append(self._next_row(state, page, at_ms), page)

    @property
    def _continues(self) -> bool:
        return self.machine is not None and self.machine.end is not None and self.machine.end.kind is Kind.CONTINUED

    def _go_on_as_new(self, archived: str) -> list[Item]:
        """Become the run that goes on for this one, which gets another id. Returns what the new one begins with."""
        old, machine = self.row, self.machine
        if machine is None or machine.end is None:
            raise NotOpen
        facts: dict[str, Any] = {
            "name": old.name,
            "seed": short_digest(f"{machine.seed} continued {machine.last_id}"),
            "last_id": machine.last_id,
            "continued_from": archived,
        }
        if machine.attributes:
            facts["attributes"] = machine.attributes
        started = Draft(Kind.STARTED, facts, machine.end.payload)
        signals = [
            Draft(Kind.SIGNAL_RECEIVED, {"name": name}, encode(payload)) for name, payload in machine.kept_signals
        ]
        self.row = RunRow(
            old.id, old.name, "running", old.input_hash, 0, 0, "[]", None, None, old.updated_at, old.updated_at,
            replace(old.facts, continued_from=archived, continued_to=None),
        )  # fmt: skip  # the columns in order
        self.machine, self.created, self.archived = Machine(machine.definition, old.id), False, archived
        self.timers, self.heartbeats = {}, {}
        machine.close()
        return [Item(draft) for draft in (started, *signals)]

    def _feed(self, machine: Machine, item: Item, page: Page, at_ms: int) -> None:
        self._take_commands(machine, page, at_ms)  # left over from a load
        text = page.put(item.draft, at_ms)
        if item.signal_id is not None:
            page.signals.append((self.row.id, item.signal_id, page.seq))
        try:
            machine.feed(item.draft.event(page.seq, at_ms, text))
        except Exception as error:  # noqa: BLE001 - the code doesn't fit, whichever way it shows
            self.block(error)
            return
        self._take_commands(machine, page, at_ms)

    def _take_commands(self, machine: Machine, page: Page, at_ms: int) -> None:
        for command in machine.take_commands():
            page.put(command.draft(), at_ms)
            if command.facts:
                page.send(of_command(self.row.id, command, machine.seed))

    def _unreplayed(self, item: Item, page: Page, at_ms: int) -> State | None:
        """A blocked run keeps what is sent to it; a cancellation ends it without its code."""
        if item.draft.kind == Kind.TERMINATED:
            page.put(item.draft, at_ms)
            self.error = encode(item.draft.facts["error"])
            return "terminated"
        if item.draft.kind == Kind.CANCEL_REQUESTED:
            page.put(item.draft, at_ms)
            page.put(Draft(Kind.CANCELLED, {"hash": short_digest("")}), at_ms)
            return "cancelled"
        if item.draft.kind in (Kind.PAUSED, Kind.RESUMED):
            paused = item.draft.kind == Kind.PAUSED
            if paused is not bool(self.row.facts.paused if page.paused is None else page.paused):
                page.put(item.draft, at_ms)
                page.paused = paused
        if item.draft.kind in KEPT_WHILE_BLOCKED:
            page.put(item.draft, at_ms)
            if item.signal_id is not None:
                page.signals.append((self.row.id, item.signal_id, page.seq))
        return None

    def block(self, error: Exception) -> None:
        """Drop the machine: the code does not fit the log."""
        if self.machine is not None:
            self.machine.close()
            self.machine = None
        facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, Mismatch):
            facts |= {"seq": error.seq, "recorded": error.recorded, "code": error.code}
        line = getattr(error, "where", None)
        if line is not None:
            facts["where"] = line
        self.error = encode(facts)

    def _next_row(self, state: State, page: Page, at_ms: int) -> RunRow:
        machine, error = self.machine, self.error
        if machine is None:
            if state == "running":
                state = "blocked"
            facts = self.row.facts if page.paused is None else replace(self.row.facts, paused=page.paused)
            return replace(
                self.row, state=state, last_seq=page.seq, active=0, error=error, updated_at=at_ms, facts=facts
            )
        if machine.queued is not None:
            state = "queued"
        if machine.end is not None:
            state = _END_STATES[machine.end.kind]
            error = encode(machine.end.error) if machine.end.error is not None else None
        row, steps = self.row, machine.pending.values()
        return RunRow(
            row.id,
            row.name,
            state,
            row.input_hash,
            page.seq,
            sum([s.activity is not None and s.due_ms is None for s in steps]),
            encode([s.describe() for s in islice(steps, WAITS_SHOWN)]),
            machine.user_state,
            error,
            row.created_at,
            at_ms,
            self._facts(machine, at_ms),
        )

    def _facts(self, machine: Machine, at_ms: int) -> RunFacts:
        facts = self.row.facts
        attributes = encode(machine.attributes) if machine.attributes else None
        if attributes != facts.attributes:
            facts = replace(facts, attributes=attributes)
        if machine.paused != bool(facts.paused):
            facts = replace(facts, paused=machine.paused)
        if self._continues and facts.continued_to is None:
            facts = replace(facts, continued_to=self.row.id)
        if facts.place is not None and facts.admitted_at is None and machine.queued is None:
            facts = replace(facts, admitted_at=at_ms)
        return facts

    def _append(self, row: RunRow, page: Page) -> Append | None:
        if row.state in CLOSED:
            wanted = {}
            page.letters = [letter for letter in page.letters if not letter.dies_with_sender]
        elif self.machine is None:
            wanted = self.timers  # they are due once the code fits
        else:
            wanted = {i: s.due_ms for i, s in self.machine.pending.items() if s.due_ms is not None}
        timers_set = [(row.id, i, due) for i, due in wanted.items() if self.timers.get(i) != due]
        timers_gone = [(row.id, i) for i in self.timers if i not in wanted]
        if row.state in CLOSED and row.facts.parent is not None:
            page.send(of_end(row, self.machine.end.payload if self.machine is not None and self.machine.end else None))
        beats_gone = [
            (row.id, i) for i in self.heartbeats if self.machine is not None and i not in self.machine.pending
        ]
        for _, step in beats_gone:
            del self.heartbeats[step]
        beats_set = [_beat_row(row.id, i, self.heartbeats[i]) for i in self.beaten if i in self.heartbeats]
        self.beaten.clear()
        unchanged = not (page.log or timers_set or timers_gone or page.letters_gone or beats_set or beats_gone)
        if unchanged and replace(row, updated_at=self.row.updated_at) == self.row:
            return None
        self.timers = dict(wanted)
        created, self.created = not self.created, True
        moved = row.state != self.row.state or row.error != self.row.error or row.facts is not self.row.facts
        busier, self.row = row.active != self.row.active, row
        archived, self.archived = self.archived, None
        return Append(
            row,
            created,
            page.log,
            page.payloads,
            timers_set,
            timers_gone,
            page.signals,
            moved,
            archived,
            page.letters,
            page.letters_gone,
            beats_set,
            beats_gone,
            busier=busier,
        )

    def beat(self, step: int, heartbeat: Heartbeat) -> None:
        """An activity has said that it lives; the next append keeps that."""
        self.heartbeats[step] = heartbeat
        self.beaten.add(step)

    def last_heartbeat(self, step: int) -> str | None:
        """The details of the newest heartbeat of a step, JSON text."""
        found = self.heartbeats.get(step)
        return None if found is None else found.details

    def to_dispatch(self) -> list[int]:
        """Activities that are to run now and are not on their way."""
        if self.machine is None or self.machine.end is not None or self.machine.paused:
            return []
        steps = self.machine.pending.items()
        return [i for i, s in steps if s.activity is not None and s.due_ms is None and i not in self.in_flight]

    def abandoned(self) -> list[int]:
        """Activities on their way whose result nobody waits for any more."""
        pending = self.machine.pending if self.machine is not None else {}
        return [i for i in self.in_flight if i not in pending]

    def timer_is_firing(self, step: int) -> bool:
        """Whether the firing of this timer is on its way into the log already."""
        return any(
            item.draft.kind == Kind.TIMER_FIRED and item.draft.facts["id"] == step
            for item in (*self.inbox, *(self.writing or ()))
        )

    @property
    def idle(self) -> bool:
        """Nothing is under way: it may leave memory."""
        return not self.loading and not self.inbox and self.writing is None and not self.in_flight and not self.beaten


def _beat_row(run_id: str, step: int, heartbeat: Heartbeat) -> tuple[str, int, int, int, str]:
    return run_id, step, heartbeat.attempt, heartbeat.at_ms, heartbeat.details


_END_STATES: Final[dict[Kind, State]] = {
    Kind.COMPLETED: "completed",
    Kind.FAILED: "failed",
    Kind.CANCELLED: "cancelled",
    Kind.TERMINATED: "terminated",
    Kind.CONTINUED: "continued",
}


def new_run(
    definition: Workflow,
    run_id: str,
    input_hash: str,
    now_ms: int,
    facts: RunFacts = NO_FACTS,
    archived: str | None = None,
) -> Loaded:
    """A run that is not in the file yet. `archived`: the id that the ended run gets that has its id."""
    row = RunRow(run_id, definition.name, "running", input_hash, 0, 0, "[]", None, None, now_ms, now_ms, facts)
    return Loaded(row, Machine(definition, run_id), created=False, archived=archived)


def new_child(letter: Letter, definition: Workflow | None, known: tuple[str, ...], now_ms: int) -> Loaded:
    """A child that is not in the file yet; blocked when this code does not have its workflow."""
    facts = RunFacts(
        parent=letter.sender,
        parent_step=letter.facts["parent_step"],
        parent_policy=letter.facts["on_parent_close"],
    )
    run_id, input_hash = letter.target, digest(letter.payload or "null")
    if definition is not None:
        return new_run(definition, run_id, input_hash, now_ms, facts)
    name = letter.facts["name"]
    row = RunRow(run_id, name, "running", input_hash, 0, 0, "[]", None, None, now_ms, now_ms, facts)
    loaded = Loaded(row, None, created=False)
    loaded.block(UnknownWorkflow(name, known))
    return loaded


def replayed(
    definition: Workflow,
    row: RunRow,
    events: list[Event],
    timers: dict[int, int],
    now_ms: int,
    heartbeats: dict[int, Heartbeat],
) -> Loaded:
    """A run from its log. Blocked when the code does not fit."""
    machine = Machine(definition, row.id)
    loaded = Loaded(row, machine, timers, counted=row.state, heartbeats=heartbeats)
    try:
        machine.replay(events)
    except Exception as error:  # noqa: BLE001 - the code doesn't fit, whichever way it shows
        loaded.block(error)
        return loaded
    fire_due_retries(loaded, now_ms)
    return loaded


def fire_due_retries(loaded: Loaded, now_ms: int) -> None:
    """Activities whose wait for the next attempt is over: they are to run."""
    if loaded.machine is not None:
        for step in loaded.machine.pending.values():
            if step.activity is not None and step.due_ms is not None and step.due_ms <= now_ms:
                step.due_ms = None
