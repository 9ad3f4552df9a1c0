"""A part of workflow code that can be cancelled by itself: from another branch, or when its time is up."""

from __future__ import annotations

from types import TracebackType

from node.workflow.core.branches import Branch, Future
from node.workflow.core.inside import Inside
from node.workflow.errors import Cancelled, InvalidDefinition, ScopeTimeout
from node.workflow.values.events import Kind


class _Block:
    """What is between the two ends of an `async with`, in one branch."""

    def __init__(self, machine: Inside) -> None:
        self._machine = machine
        self._branch: Branch | None = None
        self._number = 0
        self.cancelled = False

    def _enter(self) -> None:
        if self._number:
            raise InvalidDefinition("a scope is entered once: make another with ctx.scope() or ctx.timeout(…)")
        self._number = self._machine.next_scope()
        self._branch = self._machine.current_branch()

    def _leave(self, error: BaseException | None) -> bool:
        """Whether `error` is the cancellation of this block."""
        branch, self._branch = self._branch, None
        if branch is not None and branch.cancelled is not None and branch.cancelled.scope == self._number:
            branch.cancelled = None  # nothing in the block waits any more
        return isinstance(error, Cancelled) and error.scope == self._number

    def _cancel(self) -> None:
        if self._branch is not None and not self.cancelled:
            self.cancelled = True
            self._machine.cancel(self._branch, self._number)


class Scope(_Block):
    """`async with ctx.scope() as scope:` a block that can be cancelled.

    `Cancelled` is thrown into it where it waits, and what it had asked for is cancelled. After its cleanup the code
    goes on behind the block.
    """

    def cancel(self) -> None:
        """Cancel what runs in the block. Does nothing before and after it."""
        self._cancel()

    async def __aenter__(self) -> Scope:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._leave(error)


class Timeout(_Block):
    """`async with ctx.timeout(seconds):` a block that is cancelled when its time is up: ScopeTimeout is raised behind
    it, after its cleanup.
    """

    def __init__(self, machine: Inside, seconds: float, after_ms: int) -> None:
        super().__init__(machine)
        self._seconds = seconds
        self._after_ms = after_ms
        self._timer: Future | None = None

    async def __aenter__(self) -> None:
        self._enter()
        self._timer = self._machine.ask(
            Kind.TIMER_STARTED, "timeout", str(self._after_ms), after_ms=self._after_ms, then=self._cancel
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._machine.abandon(self._timer)
        if self._leave(error):
            raise ScopeTimeout(self._seconds) from error
