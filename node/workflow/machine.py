"""The pure core: a run's log in, what to do next out. No clock, no I/O, no asyncio.

`Machine.feed` takes one event at a time, the same way live and on replay. An input resolves what the code waits for
and lets it go on; an intent must be what the code asked for at that point, else `Mismatch` is raised.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from node.workflow.command import Command, Pending
from node.workflow.context import Context
from node.workflow.define import Activity, Workflow
from node.workflow.describe import OWN_CODE, STDLIB, cut, describe_error
from node.workflow.errors import (
    ActivityFailed,
    Cancelled,
    ChildFailed,
    ForeignAwait,
    InvalidInput,
    Mismatch,
    NotStorable,
    WaitTimeout,
    WorkflowError,
)
from node.workflow.events import INTENTS, Draft, Event, Kind
from node.workflow.payload import encode, short_digest
from node.workflow.scheduler import Branch, Future, Scheduler

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
UNANSWERED: Final = frozenset({Kind.SIGNAL_SENT, Kind.CANCEL_SENT})


class Machine:
    """One run in memory. Feed it the events of its log in order; take the commands it emits; close it when done with
    it.

    `feed` raises Mismatch or ForeignAwait; the machine is of no use after that and must be closed.
    """

    def __init__(self, definition: Workflow, run_id: str) -> None:
        self.definition = definition
        self.run_id = run_id
        self.now_ms = 0
        self.seq = 0
        self.pending: dict[int, Pending] = {}
        self.user_state: str | None = None
        self.attributes: dict[str, Any] = {}
        self.queued: Event | None = None  # the start of a run that waits in a queue
        self.end: Command | None = None
        self.dropped = False
        self.cancelling = False
        self.seed = ""
        self._draws = 0
        self._ids = 0
        self._scopes = 0
        self._emitted: deque[Command] = deque()
        self._signals: dict[str, deque[Any]] = {}
        self._signal_waits: dict[str, deque[int]] = {}
        self._scheduler = Scheduler(self.abandon)
        self._root: Branch | None = None

    # what the engine uses

    def feed(self, event: Event) -> None:
        """Take the next event of the log."""
        self.seq = event.seq
        if event.kind in INTENTS:
            self._check(event)
            return
        handler = _HANDLERS.get(event.kind)
        if handler is None:
            raise Mismatch(self.run_id, event.seq, f"a {event.kind!r} event", "not know such events")
        if self.end is not None:
            raise Mismatch(self.run_id, event.seq, event.kind, f"end: {self.end.describe()}")
        self.now_ms = event.at_ms
        handler(self, event)
        foreign = self._scheduler.run()
        if foreign is not None:
            branch, awaited = foreign
            raise ForeignAwait(self.run_id, repr(awaited), _where(branch))

    def take_commands(self) -> list[Command]:
        """The commands emitted and not found in the log yet: the caller records them, in this order."""
        commands = list(self._emitted)
        self._emitted.clear()
        return commands

    def expects(self, draft: Draft) -> bool:
        """Whether this input still means something: the step it belongs to has not ended and was not abandoned."""
        if self.end is not None or (self.cancelling and draft.kind == Kind.CANCEL_REQUESTED):
            return False
        if draft.kind == Kind.ADMITTED:
            return self.queued is not None
        step = draft.facts.get("id") if draft.kind != Kind.SIGNAL_RECEIVED else None
        return step is None or step in self.pending

    def close(self) -> None:
        """Drop the coroutines."""
        self.dropped = True
        self._scheduler.close()

    # what the context uses

    def ask(
        self,
        kind: Kind,
        name: str,
        signature: str,
        *,
        payload: str | None = None,
        after_ms: int | None = None,
        activity: Activity[..., Any] | None = None,
        child: Workflow[Any, Any] | str | None = None,
        facts: Mapping[str, Any] = NOTHING,
        then: Callable[[], None] | None = None,
    ) -> Future:
        """Emit a command; the future is resolved when its step has ended, and `then` called. `signature` is what is
        hashed.
        """
        if self.dropped:
            return Future()  # never resolved: cleanup of a run that leaves memory must not act
        self._ids += 1
        due_ms = None if after_ms is None else self.now_ms + after_ms
        command = Command(self._ids, kind, name, short_digest(signature), payload, due_ms, facts=facts)
        future = Future(command.id, then)
        self._emitted.append(command)
        if kind in UNANSWERED:
            return future
        self.pending[command.id] = Pending(command, future, activity, child, due_ms=due_ms, scheduled_ms=self.now_ms)
        if kind is Kind.SIGNAL_AWAITED:
            self._signal_waits.setdefault(name, deque()).append(command.id)
            self._deliver(name)
        return future

    def next_id(self) -> int:
        """The id that the next command gets."""
        return self._ids + 1

    def spawn(self, coro: Coroutine[Any, Any, Any], on_done: Callable[[Branch], None]) -> Branch:
        """Run `coro` beside the others of this run."""
        if self.dropped:
            coro.close()
            return Branch(coro, on_done)
        return self._scheduler.spawn(coro, on_done)

    def cancel(self, branch: Branch, scope: int | None = None) -> None:
        """Throw Cancelled into a branch, for the scope of this number or for all of it."""
        self._scheduler.cancel(branch, scope)

    def current_branch(self) -> Branch | None:
        """The branch whose code runs now."""
        return self._scheduler.current

    def next_scope(self) -> int:
        """The number of a scope that is entered: an outer one has a smaller number than those in it."""
        self._scopes += 1
        return self._scopes

    def resolve(self, future: Future) -> None:
        """Wake who waits for `future`."""
        self._scheduler.resolve(future)

    def abandon(self, future: Future) -> None:
        """Nobody waits for this step any more. A child goes on: it is asked to end by a command of its own."""
        step = self.pending.get(future.step) if future.step is not None else None
        if step is None or step.child is not None:
            return
        del self.pending[step.command.id]
        if step.command.kind is Kind.SIGNAL_AWAITED:
            self._signal_waits[step.command.name].remove(step.command.id)

    def draw(self) -> bytes:
        """The next 32 bytes that are random to the world and the same on every replay."""
        self._draws += 1
        return hashlib.sha256(f"{self.seed}:{self._draws}".encode()).digest()

    # how inputs are taken

    def _started(self, event: Event) -> None:
        self.seed = event.body["seed"]
        self.attributes = dict(event.body.get("attributes", {}))
        if "queue" in event.body:
            self.queued = event
        else:
            self._begin(event)

    def _admitted(self, event: Event) -> None:
        if self.queued is None:
            raise Mismatch(self.run_id, event.seq, "that a queue let the run go on", "not wait in a queue")
        started, self.queued = self.queued, None
        self._begin(started)

    def _begin(self, event: Event) -> None:
        context = Context(self)
        try:
            arguments = self.definition.arguments(event.body["input"])
        except InvalidInput as error:
            raise Mismatch(
                self.run_id, event.seq, f"{event.body['input']!r:.200} as input", f"not take it: {error}"
            ) from None
        self._root = self._scheduler.spawn(self.definition.fn(context, *arguments), self._ended)

    def _completed(self, event: Event) -> None:
        step = self._take(event)
        activity = step.activity
        assert activity is not None  # noqa: S101 - _take has checked the kind
        try:
            value = activity.result_decoder()(event.body["result"], "result")
        except InvalidInput as error:
            raise Mismatch(self.run_id, event.seq, f"{event.body['result']!r:.200}", f"not take it: {error}") from None
        self._scheduler.resolve(step.future, value)

    def _failed(self, event: Event) -> None:
        step = self._take(event)
        error = event.body["error"]
        failure = ActivityFailed(step.command.name, error["type"], error["message"], event.body["attempt"])
        self._scheduler.resolve(step.future, error=failure)

    def _child_completed(self, event: Event) -> None:
        step = self._take(event)
        decode = step.child.result_decoder() if isinstance(step.child, Workflow) else None
        try:
            value = decode(event.body["result"], "result") if decode is not None else event.body["result"]
        except InvalidInput as error:
            raise Mismatch(self.run_id, event.seq, f"{event.body['result']!r:.200}", f"not take it: {error}") from None
        self._scheduler.resolve(step.future, value)

    def _child_failed(self, event: Event) -> None:
        step = self._take(event)
        command, error = step.command, event.body["error"]
        failure = ChildFailed(
            command.name, command.facts["child"], event.body["state"], error["type"], error["message"]
        )
        self._scheduler.resolve(step.future, error=failure)

    def _attempt_failed(self, event: Event) -> None:
        step = self.pending.get(event.body["id"])
        if step is None:
            raise self._unknown_step(event)
        step.failed_attempts = event.body["attempt"]
        step.due_ms = event.body["due"]

    def _fired(self, event: Event) -> None:
        step = self._take(event)
        if step.command.kind is Kind.SIGNAL_AWAITED:
            self._signal_waits[step.command.name].remove(step.command.id)
            self._scheduler.resolve(step.future, error=WaitTimeout(step.command.name))
        else:
            self._scheduler.resolve(step.future)

    def _signalled(self, event: Event) -> None:
        name = event.body["name"]
        self._signals.setdefault(name, deque()).append(event.body["payload"])
        self._deliver(name)

    def _terminated(self, event: Event) -> None:
        self.close()
        self.pending.clear()
        self.end = Command(0, Kind.TERMINATED, "", "", error=event.body["error"])

    def _cancel_requested(self, event: Event) -> None:
        self.cancelling = True
        if self.queued is not None:
            self.end = Command(0, Kind.CANCELLED, "", short_digest(""))
            self._emitted.append(self.end)
        if self._root is not None:
            self._scheduler.cancel(self._root)

    # how the code's side is kept

    def _deliver(self, name: str) -> None:
        values, waits = self._signals.get(name), self._signal_waits.get(name)
        while values and waits:
            step = self.pending.pop(waits.popleft())
            self._scheduler.resolve(step.future, values.popleft())

    def _ended(self, root: Branch) -> None:
        self.end = self._outcome(root)
        self.pending.clear()
        self._emitted.append(self.end)

    def _outcome(self, root: Branch) -> Command:
        if isinstance(root.error, Cancelled):
            return Command(0, Kind.CANCELLED, "", short_digest(""))
        error = root.error
        if error is None:
            try:
                text = encode(root.value, f"the result of workflow {self.definition.name}")
                return Command(0, Kind.COMPLETED, "", short_digest(text), text)
            except NotStorable as not_storable:
                error = not_storable
        facts = describe_error(error)
        return Command(0, Kind.FAILED, "", short_digest(f"{facts['type']}: {facts['message']}"), error=facts)

    def _take(self, event: Event) -> Pending:
        asked_for_only_now = any(c.id == event.body["id"] for c in self._emitted)
        step = None if asked_for_only_now else self.pending.pop(event.body["id"], None)
        if step is None or step.command.kind not in _ENDS_OF[event.kind]:
            raise self._unknown_step(event)
        return step

    def _unknown_step(self, event: Event) -> WorkflowError:
        return Mismatch(self.run_id, event.seq, f"{event.kind} of step {event.body['id']}", "not wait for that step")

    def _check(self, event: Event) -> None:
        recorded = f"{event.kind} {event.body.get('name', '')} (hash {event.body['hash']}) {_recorded_payload(event)}"
        if not self._emitted:
            raise Mismatch(self.run_id, event.seq, recorded, "nothing at this point")
        command = self._emitted.popleft()
        found = (event.kind, event.body.get("name", ""), event.body["hash"], event.body.get("id", 0))
        if found != (command.kind, command.name, command.hash, command.id):
            raise Mismatch(self.run_id, event.seq, recorded, command.describe())


_ENDS_OF: Final[Mapping[str, frozenset[Kind]]] = MappingProxyType(
    {
        Kind.ACTIVITY_COMPLETED: frozenset({Kind.ACTIVITY_SCHEDULED}),
        Kind.ACTIVITY_FAILED: frozenset({Kind.ACTIVITY_SCHEDULED}),
        Kind.TIMER_FIRED: frozenset({Kind.TIMER_STARTED, Kind.SIGNAL_AWAITED}),
        Kind.CHILD_COMPLETED: frozenset({Kind.CHILD_STARTED}),
        Kind.CHILD_FAILED: frozenset({Kind.CHILD_STARTED}),
    }
)

_HANDLERS: Final[Mapping[str, Callable[[Machine, Event], None]]] = MappingProxyType(
    {
        Kind.STARTED: Machine._started,
        Kind.ACTIVITY_COMPLETED: Machine._completed,
        Kind.ACTIVITY_FAILED: Machine._failed,
        Kind.ATTEMPT_FAILED: Machine._attempt_failed,
        Kind.TIMER_FIRED: Machine._fired,
        Kind.SIGNAL_RECEIVED: Machine._signalled,
        Kind.CANCEL_REQUESTED: Machine._cancel_requested,
        Kind.ADMITTED: Machine._admitted,
        Kind.TERMINATED: Machine._terminated,
        Kind.CHILD_COMPLETED: Machine._child_completed,
        Kind.CHILD_FAILED: Machine._child_failed,
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """What `step` decides: commands to record, the ids of timers to fire, and how the run ended, if it did."""

    commands: tuple[Command, ...]
    due: tuple[int, ...]
    end: Command | None


def step(history: Iterable[Event], definition: Workflow, run_id: str, now_ms: int) -> Step:
    """What is to be done after `history` at `now_ms` (unix time, milliseconds). Raises Mismatch or ForeignAwait."""
    machine = Machine(definition, run_id)
    try:
        for event in history:
            machine.feed(event)
        due = tuple(i for i, s in machine.pending.items() if s.due_ms is not None and s.due_ms <= now_ms)
        return Step(tuple(machine.take_commands()), due, machine.end)
    finally:
        machine.close()


def _recorded_payload(event: Event) -> str:
    for key in ("args", "result", "input", "payload"):
        if key in event.body:
            return cut(encode(event.body[key]), 200)
    return ""


def _where(branch: Branch) -> str:
    """The innermost line of the author's own code."""
    coro: Any = branch.coro
    where = "unknown place"
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        if not frame.f_code.co_filename.startswith((OWN_CODE, STDLIB)):
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coro = coro.cr_await
    return where
