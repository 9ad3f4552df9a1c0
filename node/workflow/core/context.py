"""What workflow code gets as `ctx`.

Everything it offers is recorded, or derived from what is, so that a replay sees the same.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, overload

from node.workflow.core.children import Child, OnParentClose, send_signal, start_child
from node.workflow.core.definition import Activity, Workflow
from node.workflow.core.groups import First, check_steps, gather, race, shield
from node.workflow.core.inside import Inside
from node.workflow.core.runlog import RunLog
from node.workflow.core.scopes import Scope, Timeout
from node.workflow.core.signals import Signal
from node.workflow.errors import ContinueAsNew, InvalidDefinition
from node.workflow.values.attributes import check_attributes
from node.workflow.values.events import Kind
from node.workflow.values.payload import decoder, encode
from node.workflow.values.runid import check_run_id

P = ParamSpec("P")
R = TypeVar("R")
In = TypeVar("In")


class Context:
    """The door of one run to everything outside its own code."""

    def __init__(self, machine: Inside) -> None:
        self._machine = machine

    @property
    def log(self) -> RunLog:
        """A logger whose messages carry the run and its workflow, and that is silent when the log is replayed."""
        return RunLog(self._machine)

    @property
    def run_id(self) -> str:
        """The id of this run."""
        return self._machine.run_id

    async def run(self, activity: Activity[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `activity` and return its result. Raises ActivityFailed when it failed for good."""
        if not isinstance(activity, Activity):
            raise InvalidDefinition(f"ctx.run takes an activity, {activity!r} is none: decorate it with @activity")
        activity.check()
        payload = encode(activity.positional(args, kwargs), f"the arguments of activity {activity.name}")
        result: R = await self._machine.ask(
            Kind.ACTIVITY_SCHEDULED, activity.name, payload, payload=payload, activity=activity
        )
        return result

    async def sleep(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Sleep durably; a restart in between changes nothing."""
        after_ms = _milliseconds(seconds + 60 * minutes + 3600 * hours + 86400 * days)
        await self._machine.ask(Kind.TIMER_STARTED, "", str(after_ms), after_ms=after_ms)

    @overload
    async def wait_signal(self, name: str, timeout_s: float | None = None, *, type: type[R]) -> R: ...
    @overload
    async def wait_signal(self, name: str, timeout_s: float | None = None, *, type: Any = Any) -> Any: ...
    async def wait_signal(self, name: str, timeout_s: float | None = None, *, type: Any = Any) -> Any:
        """The payload of the next signal `name`, in the order they came; ones that came before are kept.

        `type` says how to read the payload back (plain JSON without it). Raises WaitTimeout after `timeout_s`
        seconds, and InvalidInput when the payload does not fit `type`.
        """
        after_ms = None if timeout_s is None else _milliseconds(timeout_s)
        signal: Signal = await self._machine.ask(Kind.SIGNAL_AWAITED, name, str(after_ms), after_ms=after_ms)
        return decoder(type, f"signal {name}")(signal.payload, "payload")

    def start_child(
        self,
        workflow: Workflow[In, R] | str,
        input: In | None = None,
        *,
        id: str | None = None,
        on_parent_close: OnParentClose = "terminate",
    ) -> Child[R]:
        """Start a child run beside this code: await what is returned for its result; it takes signals and `cancel()`.

        The start is recorded, so it is one child over restarts. `id` defaults to this run's and the step's; an id that
        another run has makes it fail as `refused`. `on_parent_close` says what becomes of it when this run ends first:
        ended at once, asked to end, or left alone. Raises InvalidInput, InvalidDefinition, NotStorable.
        """
        return start_child(self._machine, workflow, input, id, on_parent_close)

    async def child(
        self,
        workflow: Workflow[In, R] | str,
        input: In | None = None,
        *,
        id: str | None = None,
        on_parent_close: OnParentClose = "terminate",
    ) -> R:
        """Run a child to its end and return its result. Raises ChildFailed when it has none.

        When what waits here is cancelled, the child is cancelled too and its end awaited, unless it is to be abandoned.
        """
        return await start_child(self._machine, workflow, input, id, on_parent_close)

    def signal(self, run_id: str, name: str, payload: Any = None) -> None:
        """Send a signal to another run of this file, once; one that is not there, or has ended, never gets it.

        Raises NotStorable, InvalidInput.
        """
        send_signal(self._machine, check_run_id(run_id), name, payload)

    @overload
    async def gather(
        self, *steps: Coroutine[Any, Any, R], limit: int | None = None, return_exceptions: Literal[False] = False
    ) -> list[R]: ...
    @overload
    async def gather(
        self, *steps: Coroutine[Any, Any, R], limit: int | None = None, return_exceptions: bool
    ) -> list[R | BaseException]: ...
    async def gather(
        self, *steps: Coroutine[Any, Any, Any], limit: int | None = None, return_exceptions: bool = False
    ) -> list[Any]:
        """Run several steps side by side, at most `limit` at a time, and return their results in order.

        The first failure cancels the others, waits for their cleanup and is raised; with `return_exceptions` every step
        runs to its end and failures are among the results. A cancelled run cancels all of them.
        """
        check_steps("gather", steps)
        return await gather(self._machine, steps, limit, return_exceptions)

    async def race(self, *steps: Coroutine[Any, Any, R]) -> First[R]:
        """Run several steps side by side; returns which ended first and its result, or raises its failure.

        The others are cancelled, and their cleanup has ended when this returns.
        """
        check_steps("race", steps)
        return await race(self._machine, steps)

    async def shield(self, step: Coroutine[Any, Any, R]) -> R:
        """Run a step to its end whatever is cancelled meanwhile; a cancellation is raised after it."""
        check_steps("shield", (step,))
        return await shield(self._machine, step)

    def scope(self) -> Scope:
        """`async with ctx.scope() as scope:` a block that `scope.cancel()` ends, from another branch of a gather, say.

        Its cleanup is awaited; the code then goes on behind it.
        """
        return Scope(self._machine)

    def timeout(self, seconds: float) -> Timeout:
        """`async with ctx.timeout(30):` a block that is cancelled when its time is up: raises ScopeTimeout behind it.

        The time is durable; what the block's cleanup awaits is not bounded by it.
        """
        return Timeout(self._machine, seconds, _milliseconds(seconds))

    def now(self) -> datetime:
        """The time in UTC as of the event that the code goes on from. Never falls."""
        return datetime.fromtimestamp(self._machine.now_ms / 1000, UTC)

    def random(self) -> float:
        """A number from 0 up to, not including, 1: the same on every replay."""
        return (int.from_bytes(self._machine.draw()[:8], "big") >> 11) / (1 << 53)

    def uuid(self) -> uuid.UUID:
        """A UUID (version 4): the same on every replay."""
        return uuid.UUID(bytes=self._machine.draw()[:16], version=4)

    def continue_as_new(self, input: Any = None) -> NoReturn:
        """End this run and go on with a new one of the same id, whose history is empty. Raises NotStorable.

        Signals that nobody has waited for go along, and so do the attributes. Children are treated as when a run
        closes. The old run is kept under another id, `continued_to` of it being this one.
        """
        self._machine.writes()
        raise ContinueAsNew(encode(input, "the next run's input"))

    def patched(self, name: str) -> bool:
        """Whether to run new code: True for runs that have not come here yet, False for those that have come past.

        `if ctx.patched("charge-in-euro"): new else: old`: what a run got first it gets always.
        """
        return self._machine.patch(name, deprecated=False)

    def deprecate_patch(self, name: str) -> None:
        """In place of `patched`, when no run is left that needs the old code; once none is left that has not recorded
        this either, the call can be removed.
        """
        self._machine.patch(name, deprecated=True)

    def on_query(self, name: str, handler: Callable[..., Any]) -> None:
        """Answer `Engine.query(run_id, name, …)` with `handler(…)`: a plain function that reads what the code knows.

        Its arguments are read by their type hints; it must not use this context to change the run.
        """
        if inspect.iscoroutinefunction(handler):
            raise InvalidDefinition(f"the handler of query {name} must be a plain function, not `async def`")
        self._machine.writes()
        self._machine.queries[name] = handler

    def set_state(self, value: Any) -> None:
        """Publish `value` as the run's state, for `Engine.get`: progress, say. Raises NotStorable."""
        self._machine.writes()
        self._machine.user_state = encode(value, "the state")

    def set_attributes(self, **attributes: str | int | float | bool | None) -> None:
        """Change what the run can be found by, for `Engine.list`; None removes one. Raises InvalidInput."""
        check_attributes(attributes)
        self._machine.writes()
        changed = {**self._machine.attributes, **attributes}
        self._machine.attributes = {name: value for name, value in changed.items() if value is not None}


def _milliseconds(seconds: float) -> int:
    if not 0 <= seconds < 1e10:
        raise InvalidDefinition(f"{seconds} s is no time to wait: from 0 to 1e10 seconds")
    return round(seconds * 1000)
