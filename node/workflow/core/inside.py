"""The machine as the run's own code sees it, through `ctx`: what it asks for, and what of that has not ended."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final

from node.workflow.core.branches import Branch, Branches, Future
from node.workflow.core.command import Command, Pending
from node.workflow.core.definition import Activity, Workflow
from node.workflow.core.signals import Signal, Signals
from node.workflow.errors import InvalidDefinition, QueryWrites
from node.workflow.values.events import Kind
from node.workflow.values.payload import short_digest

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
UNANSWERED: Final = frozenset({Kind.SIGNAL_SENT, Kind.CANCEL_SENT})


class Inside:
    """What `ctx` and its parts act on. `Machine` is this, fed from the log."""

    def __init__(self, definition: Workflow, run_id: str) -> None:
        self.definition = definition
        self.run_id = run_id
        self.now_ms = 0
        self.behind_ms = 0  # how far the clock is behind `now_ms`, which never falls: new timers are due by the clock
        self.pending: dict[int, Pending] = {}
        self.user_state: str | None = None
        self.attributes: dict[str, Any] = {}
        self.queries: dict[str, Callable[..., Any]] = {}
        self.dropped = False
        self.replaying = False  # what is fed was followed by something before: the code has been here
        self.loading = False  # what is fed comes from the log
        self.reading = False  # a query runs: nothing may change
        self.seed = ""
        self._draws = 0
        self._ids = 0
        self._scopes = 0
        self._patches: frozenset[str] = frozenset()  # in the log that is replayed
        self._patched: dict[str, bool] = {}
        self._emitted: deque[Command] = deque()
        self._signals = Signals()
        self._branches = Branches(self.abandon)

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
        self.writes()
        if self._branches.current is None:
            raise InvalidDefinition(f"run {self.run_id}: a task or thread of its own uses ctx; use ctx.gather(…)")
        self._ids += 1
        due_ms = None if after_ms is None else self.now_ms - self.behind_ms + after_ms
        command = Command(self._ids, kind, name, short_digest(signature), payload, due_ms, facts=facts)
        future = Future(command.id, then)
        self._emitted.append(command)
        if kind in UNANSWERED:
            return future
        scheduled_ms = self.now_ms - self.behind_ms
        self.pending[command.id] = Pending(command, future, activity, child, due_ms=due_ms, scheduled_ms=scheduled_ms)
        if kind is Kind.SIGNAL_AWAITED:
            self._signals.wait(name, command.id)
            self._deliver(name)
        return future

    def writes(self) -> None:
        """What comes next changes the run. Raises QueryWrites in a query."""
        if self.reading:
            raise QueryWrites(self.run_id)

    def patch(self, name: str, deprecated: bool) -> bool:
        """Whether the code behind this patch is to run: recorded the first time that the run comes here."""
        known = self._patched.get(name)
        if known is None and not self.dropped:
            self.writes()
            known = self._patched[name] = name in self._patches or not self.replaying
            if known:
                facts = {"deprecated": True} if deprecated else NOTHING
                self._emitted.append(Command(0, Kind.PATCHED, name, short_digest(name), facts=facts))
        return bool(known)

    def next_id(self) -> int:
        """The id that the next command gets."""
        return self._ids + 1

    def spawn(self, coro: Coroutine[Any, Any, Any], on_done: Callable[[Branch], None]) -> Branch:
        """Run `coro` beside the others of this run."""
        if self.dropped:
            coro.close()
            return Branch(coro, on_done)
        return self._branches.spawn(coro, on_done)

    def cancel(self, branch: Branch, scope: int | None = None) -> None:
        """Throw Cancelled into a branch, for the scope of this number or for all of it."""
        self._branches.cancel(branch, scope)

    def current_branch(self) -> Branch | None:
        """The branch whose code runs now."""
        return self._branches.current

    def next_scope(self) -> int:
        """The number of a scope that is entered: an outer one has a smaller number than those in it."""
        self._scopes += 1
        return self._scopes

    def resolve(self, future: Future) -> None:
        """Wake who waits for `future`."""
        self._branches.resolve(future)

    def abandon(self, future: Future) -> None:
        """Nobody waits for this step any more. A child goes on: it is asked to end by a command of its own. A signal
        that the code has not seen is there for the next wait.
        """
        if isinstance(future.value, Signal):
            self._signals.put_back(future.value)
            self._deliver(future.value.name)
            return
        step = self.pending.get(future.step) if future.step is not None else None
        if step is None or step.child is not None:
            return
        del self.pending[step.command.id]
        if step.command.kind is Kind.SIGNAL_AWAITED:
            self._signals.stop_waiting(step.command.name, step.command.id)

    def draw(self) -> bytes:
        """The next 32 bytes that are random to the world and the same on every replay."""
        self.writes()
        self._draws += 1
        return hashlib.sha256(f"{self.seed}:{self._draws}".encode()).digest()

    def _deliver(self, name: str) -> None:
        for step, signal in self._signals.matched(name):
            self._branches.resolve(self.pending.pop(step).future, signal)
