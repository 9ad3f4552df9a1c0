"""The pure core: a run's log in, what to do next out. No clock, no I/O, no asyncio.

`Machine.feed` takes one event at a time, the same way live and on replay. An input resolves what the code waits for
and lets it go on; an intent must be what the code asked for at that point, else `Mismatch` is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from node.workflow.core.branches import Branch
from node.workflow.core.command import Command, Pending
from node.workflow.core.context import Context
from node.workflow.core.definition import Workflow
from node.workflow.core.inside import Inside
from node.workflow.core.query import ask_handler
from node.workflow.core.sandbox import sandbox_for
from node.workflow.core.stepping import stepped
from node.workflow.errors import (
    ActivityFailed,
    Cancelled,
    ChildFailed,
    ContinueAsNew,
    ForeignAwait,
    InvalidInput,
    Mismatch,
    NoSuchQuery,
    NotStorable,
    WaitTimeout,
    WorkflowError,
)
from node.workflow.values.describe import cut, describe_error, raised_at, where
from node.workflow.values.events import INTENTS, Draft, Event, Kind
from node.workflow.values.payload import encode, short_digest

PART: Final = 200  # events that are replayed at a time


class Machine(Inside):
    """One run in memory. Feed it the events of its log in order; take the commands it emits; close it when done with
    it.

    `feed` raises Mismatch or ForeignAwait; the machine is of no use after that and must be closed.
    """

    def __init__(self, definition: Workflow, run_id: str) -> None:
        super().__init__(definition, run_id)
        self.seq = 0
        self.queued: Event | None = None  # the start of a run that waits in a queue
        self.end: Command | None = None
        self.paused = False
        self.cancelling = False
        self._root: Branch | None = None
        self._sandbox = sandbox_for(definition.checks)

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
        if self.paused:
            return
        foreign = stepped(self._step)
        if foreign is not None:
            branch, awaited = foreign
            if isinstance(awaited, BaseException):
                raise ForeignAwait(self.run_id, f"what asyncio refuses it ({awaited})", raised_at(awaited))
            raise ForeignAwait(self.run_id, repr(awaited), where(branch.coro))

    def _step(self) -> tuple[Branch, object] | None:
        return self._branches.run() if self._sandbox is None else self._sandbox.run(self._branches.run)

    def replay(self, history: Sequence[Event]) -> None:
        """Take a whole log up to now. Raises what `feed` raises."""
        for _ in self.replay_in_parts(history):
            pass

    def replay_in_parts(self, history: Sequence[Event]) -> Iterator[None]:
        """The same, with a pause for others now and then."""
        self.loading = True
        self._patches = frozenset(e.body["name"] for e in history if e.kind == Kind.PATCHED)
        for number, event in enumerate(history, 1):
            self.replaying = number < len(history)
            self.feed(event)
            if not number % PART:
                yield
        self.loading = self.replaying = False

    def take_commands(self) -> list[Command]:
        """The commands emitted and not found in the log yet: the caller records them, in this order."""
        if not self._emitted:
            return []
        commands = list(self._emitted)
        self._emitted.clear()
        return commands

    def expects(self, draft: Draft) -> bool:
        """Whether this input still means something: the step it belongs to has not ended and was not abandoned."""
        if self.end is not None or (self.cancelling and draft.kind == Kind.CANCEL_REQUESTED):
            return False
        if draft.kind == Kind.ADMITTED:
            return self.queued is not None
        if draft.kind in (Kind.PAUSED, Kind.RESUMED):
            return self.paused is (draft.kind == Kind.RESUMED)
        step = draft.facts.get("id") if draft.kind != Kind.SIGNAL_RECEIVED else None
        return step is None or step in self.pending

    def query(self, name: str, arguments: Sequence[Any]) -> str:
        """What the code's handler of this query says, as JSON text. Raises NoSuchQuery, InvalidInput, QueryWrites,
        NotStorable, or what the handler raises. The machine is of no use after that.
        """
        handler = self.queries.get(name)
        if handler is None:
            raise NoSuchQuery(self.run_id, name, tuple(sorted(self.queries)))
        self.reading = True
        return encode(ask_handler(handler, name, arguments), f"the answer to query {name}")

    @property
    def kept_signals(self) -> list[tuple[str, Any]]:
        """Name and payload of the signals that nobody has waited for."""
        return self._signals.kept()

    @property
    def last_id(self) -> int:
        """The id of the newest step."""
        return self._ids

    def close(self) -> None:
        """Drop the coroutines."""
        self.dropped = True
        self._branches.close()

    # how inputs are taken

    def _started(self, event: Event) -> None:
        self.seed = event.body["seed"]
        self.attributes = dict(event.body.get("attributes", {}))
        self._ids = event.body.get("last_id", 0)  # of the run that this one goes on for: ids are never used twice
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
        self._root = self._branches.spawn(self.definition.fn(context, *arguments), self._ended)

    def _completed(self, event: Event) -> None:
        step = self._take(event)
        activity = step.activity
        assert activity is not None  # noqa: S101 - _take has checked the kind
        try:
            value = activity.result_decoder()(event.body["result"], "result")
        except InvalidInput as error:
            raise Mismatch(self.run_id, event.seq, f"{event.body['result']!r:.200}", f"not take it: {error}") from None
        self._branches.resolve(step.future, value)

    def _failed(self, event: Event) -> None:
        step = self._take(event)
        error = event.body["error"]
        failure = ActivityFailed(step.command.name, error["type"], error["message"], event.body["attempt"])
        self._branches.resolve(step.future, error=failure)

    def _child_completed(self, event: Event) -> None:
        step = self._take(event)
        decode = step.child.result_decoder() if isinstance(step.child, Workflow) else None
        try:
            value = decode(event.body["result"], "result") if decode is not None else event.body["result"]
        except InvalidInput as error:
            raise Mismatch(self.run_id, event.seq, f"{event.body['result']!r:.200}", f"not take it: {error}") from None
        self._branches.resolve(step.future, value)

    def _child_failed(self, event: Event) -> None:
        step = self._take(event)
        command, error = step.command, event.body["error"]
        failure = ChildFailed(
            command.name, command.facts["child"], event.body["state"], error["type"], error["message"]
        )
        self._branches.resolve(step.future, error=failure)

    def _attempt_failed(self, event: Event) -> None:
        step = self.pending.get(event.body["id"])
        if step is None:
            raise self._unknown_step(event)
        step.failed_attempts = event.body["attempt"]
        step.due_ms = event.body["due"]

    def _fired(self, event: Event) -> None:
        step = self._take(event)
        if step.command.kind is Kind.SIGNAL_AWAITED:
            self._signals.stop_waiting(step.command.name, step.command.id)
            self._branches.resolve(step.future, error=WaitTimeout(step.command.name))
        else:
            self._branches.resolve(step.future)

    def _signalled(self, event: Event) -> None:
        name = event.body["name"]
        self._signals.put(name, event.body["payload"])
        self._deliver(name)

    def _terminated(self, event: Event) -> None:
        self.close()
        self.pending.clear()
        self.end = Command(0, Kind.TERMINATED, "", "", error=event.body["error"])

    def _paused(self, event: Event) -> None:
        self.paused = True

    def _resumed(self, event: Event) -> None:
        self.paused = False

    def _cancel_requested(self, event: Event) -> None:
        self.cancelling, self.paused = True, False
        if self.queued is not None:
            self.end = Command(0, Kind.CANCELLED, "", short_digest(""))
            self._emitted.append(self.end)
        if self._root is not None:
            self._branches.cancel(self._root)

    # how the code's side is kept

    def _ended(self, root: Branch) -> None:
        self.end = self._outcome(root)
        self.pending.clear()
        self._emitted.append(self.end)

    def _outcome(self, root: Branch) -> Command:
        if isinstance(root.error, Cancelled):
            return Command(0, Kind.CANCELLED, "", short_digest(""))
        error = root.error
        if isinstance(error, ContinueAsNew):
            return Command(0, Kind.CONTINUED, "", short_digest(error.text), error.text)
        if error is None:
            try:
                text = encode(root.value, f"the result of workflow {self.definition.name}")
                return Command(0, Kind.COMPLETED, "", short_digest(text), text)
            except NotStorable as not_storable:
                error = not_storable
        facts = describe_error(error)
        return Command(0, Kind.FAILED, "", short_digest(f"{facts['type']}: {facts['message']}"), error=facts)

    def _take(self, event: Event) -> Pending:
        asked_for_only_now = bool(self._emitted) and any(c.id == event.body["id"] for c in self._emitted)
        step = None if asked_for_only_now else self.pending.pop(event.body["id"], None)
        if step is None or step.command.kind not in _ENDS_OF[event.kind]:
            raise self._unknown_step(event)
        return step

    def _unknown_step(self, event: Event) -> WorkflowError:
        return Mismatch(self.run_id, event.seq, f"{event.kind} of step {event.body['id']}", "not wait for that step")

    def _check(self, event: Event) -> None:
        recorded = f"{event.kind} {event.body.get('name', '')} (hash {event.body['hash']}) {_recorded_payload(event)}"
        if event.kind == Kind.PATCHED and self._passed_by(event):
            return
        if not self._emitted:
            raise Mismatch(self.run_id, event.seq, recorded, "nothing at this point", self._line())
        command = self._emitted.popleft()
        found = (event.kind, event.body.get("name", ""), event.body["hash"], event.body.get("id", 0))
        if found != (command.kind, command.name, command.hash, command.id):
            raise Mismatch(self.run_id, event.seq, recorded, command.describe(), self._line(command))
        if "due" in event.body and (step := self.pending.get(command.id)) is not None:
            step.due_ms = event.body["due"]

    def _line(self, command: Command | None = None) -> str | None:
        """The line of the author's code that waits for a command, or where the code waits at all."""
        step = None if command is None else self.pending.get(command.id)
        branch = (step.future.waiter if step is not None else None) or self._root
        return None if branch is None else where(branch.coro)

    def _passed_by(self, event: Event) -> bool:
        """Whether this is the mark of a patch that the code no longer asks for, as announced by `deprecate_patch`."""
        asked = self._emitted and self._emitted[0].kind is Kind.PATCHED and self._emitted[0].name == event.body["name"]
        return bool(event.body.get("deprecated")) and not asked


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
        Kind.PAUSED: Machine._paused,
        Kind.RESUMED: Machine._resumed,
        Kind.CHILD_COMPLETED: Machine._child_completed,
        Kind.CHILD_FAILED: Machine._child_failed,
    }
)


def _recorded_payload(event: Event) -> str:
    for key in ("args", "result", "input", "payload"):
        if key in event.body:
            return cut(encode(event.body[key]), 200)
    return ""
