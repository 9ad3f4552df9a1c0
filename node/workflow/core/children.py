"""Child workflows, as the code of their parent sees them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args

from node.workflow.core.branches import Future
from node.workflow.core.definition import Workflow
from node.workflow.core.inside import Inside
from node.workflow.errors import Cancelled, ChildFailed, InvalidDefinition
from node.workflow.values.events import Kind
from node.workflow.values.payload import encode, short_digest
from node.workflow.values.runid import check_run_id

R = TypeVar("R")
OnParentClose: TypeAlias = Literal["terminate", "cancel", "abandon"]
POLICIES: Final[tuple[OnParentClose, ...]] = get_args(OnParentClose)
LONGEST_ID: Final = 128


class Child(Generic[R]):
    """A child that was started: await it for its result, as often as you like and from several branches.

    It runs whether or not anybody awaits it. Raises ChildFailed when it ends without a result. Where an await of it is
    cancelled, the child is asked to end, unless it is to be abandoned: the others who await it see that.
    """

    def __init__(
        self, machine: Inside, workflow: Workflow[Any, R] | str, text: str, run_id: str | None, on_close: str
    ) -> None:
        name = workflow if isinstance(workflow, str) else workflow.name
        step = machine.next_id()
        # The id that a child gets by itself is no part of what the code asked for.
        signature = f"{run_id or ''} {on_close} {text}"
        self.run_id = _default_id(machine.run_id, step) if run_id is None else run_id
        self._on_close = on_close
        self._machine = machine
        self._others: list[Future] = []  # one for each branch that awaits it beside the first
        self._future = machine.ask(
            Kind.CHILD_STARTED,
            name,
            signature,
            payload=text,
            child=workflow,
            facts={"child": self.run_id, "on_parent_close": on_close},
        )

    def __await__(self) -> Generator[Any, Any, R]:
        try:
            result: R = yield from self._ended()
        except Cancelled:
            if self._on_close != "abandon" and not self._future.done:
                self.cancel()
                with contextlib.suppress(ChildFailed):
                    yield from self._ended()
            raise
        return result

    def _ended(self) -> Generator[Any, Any, R]:
        if self._future.waiter is not None:  # a future wakes one branch
            other = Future()
            self._others.append(other)
            self._future.then = self._wake_others
            yield from other.__await__()
        result: R = yield from self._future.__await__()
        return result

    def _wake_others(self) -> None:
        for other in self._others:
            self._machine.resolve(other)

    def signal(self, name: str, payload: Any = None) -> None:
        """Send the child a signal; it is delivered once, unless the child has ended. Raises NotStorable."""
        send_signal(self._machine, self.run_id, name, payload)

    def cancel(self) -> None:
        """Ask the child to end; awaiting it then raises ChildFailed with the state `cancelled`."""
        self._machine.ask(Kind.CANCEL_SENT, "", self.run_id, facts={"run": self.run_id})


def start_child(
    machine: Inside, workflow: Workflow[Any, R] | str, input: Any, run_id: str | None, on_parent_close: str
) -> Child[R]:
    """Ask for a child. Raises InvalidDefinition, InvalidInput, NotStorable."""
    if not isinstance(workflow, Workflow | str):
        raise InvalidDefinition(f"a child is a @workflow or the name of one, {workflow!r} is neither")
    if on_parent_close not in POLICIES:
        raise InvalidDefinition(f"on_parent_close is one of {', '.join(POLICIES)}, not {on_parent_close!r}")
    text = encode(input, "the child's input")
    if isinstance(workflow, Workflow):
        workflow.arguments(json.loads(text))
        workflow.result_decoder()
    return Child(machine, workflow, text, None if run_id is None else check_run_id(run_id), on_parent_close)


def send_signal(machine: Inside, run_id: str, name: str, payload: Any) -> None:
    """Ask for a signal to any run. Raises NotStorable."""
    text = encode(payload, f"the payload of signal {name}")
    machine.ask(Kind.SIGNAL_SENT, name, f"{run_id} {text}", payload=text, facts={"run": run_id})


def _default_id(parent: str, step: int) -> str:
    own = f"{parent}.{step}"
    return own if len(own) <= LONGEST_ID else f"{parent[:100]}.{short_digest(own)}"
