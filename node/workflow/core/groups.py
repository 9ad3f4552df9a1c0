"""Steps side by side: gather, race and shield, over branches that end into one mailbox.

Whatever is started here has ended, its cleanup included, before the call returns or raises.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from node.workflow.core.branches import Branch, Future, outermost
from node.workflow.core.inside import Inside
from node.workflow.errors import UNWINDING, Cancelled, InvalidDefinition

R = TypeVar("R")
Steps: TypeAlias = Sequence[Coroutine[Any, Any, Any]]


class First(NamedTuple, Generic[R]):
    """What `ctx.race` returns: which step ended first, counted from 0, and its result."""

    which: int
    value: R


def check_steps(what: str, steps: Steps) -> None:
    """Raises InvalidDefinition for something that is no call of an `async def`."""
    for step in steps:
        if not inspect.iscoroutine(step):
            raise InvalidDefinition(f"{what} takes calls such as ctx.run(…), {step!r} is none")


async def gather(machine: Inside, steps: Steps, limit: int | None, return_exceptions: bool) -> list[Any]:
    """The results in order. The first failure cancels the others, unless `return_exceptions`."""
    most = limit if limit is not None else max(len(steps), 1)
    if most < 1:
        raise InvalidDefinition(f"gather's limit is {limit}: at least 1")
    waiting = deque(enumerate(steps))
    results: list[Any] = [None] * len(steps)
    group = _Group(machine)
    try:
        while waiting or group.running:
            while waiting and len(group.running) < most:
                group.start(*waiting.popleft())
            index, branch = await group.next()
            if branch.error is None:
                results[index] = branch.value
            elif return_exceptions and isinstance(branch.error, Exception):
                results[index] = branch.error
            else:
                raise branch.error
    except UNWINDING:
        raise
    except BaseException as failure:
        await group.stop(failure)
        raise
    finally:
        for _, step in waiting:  # not begun, and never will be
            step.close()
    return results


async def race(machine: Inside, steps: Steps) -> First[Any]:
    """The step that ended first; the others are cancelled. Its failure is raised."""
    if not steps:
        raise InvalidDefinition("a race of nothing has no winner")
    group = _Group(machine)
    try:
        for index, step in enumerate(steps):
            group.start(index, step)
        index, branch = await group.next()
        if branch.error is not None:
            raise branch.error
    except UNWINDING:
        raise
    except BaseException as failure:
        await group.stop(failure)
        raise
    await group.stop(None)
    return First(index, branch.value)


async def shield(machine: Inside, step: Coroutine[Any, Any, R]) -> R:
    """The result of a step that no cancellation reaches; one that came meanwhile is raised when it has ended."""
    group = _Group(machine)
    group.start(0, step)
    cancelled: Cancelled | None = None
    branch: Branch | None = None
    while branch is None:
        try:
            _, branch = await group.next()
        except Cancelled as again:
            cancelled = outermost(cancelled, again)
    if cancelled is not None:
        raise cancelled from branch.error
    if branch.error is not None:
        raise branch.error
    value: R = branch.value
    return value


class _Group:
    """Branches that run, and those that have ended and nobody has looked at."""

    def __init__(self, machine: Inside) -> None:
        self._machine = machine
        self._ended: deque[Branch] = deque()
        self._mail = Future()
        self.running: dict[Branch, int] = {}

    def start(self, index: int, step: Coroutine[Any, Any, Any]) -> None:
        self.running[self._machine.spawn(step, self._on_done)] = index

    def _on_done(self, branch: Branch) -> None:
        self._ended.append(branch)
        self._machine.resolve(self._mail)

    async def next(self) -> tuple[int, Branch]:
        """The branch that ended first of those not seen yet."""
        while not self._ended:
            self._mail = Future()
            await self._mail
        branch = self._ended.popleft()
        return self.running.pop(branch), branch

    async def stop(self, reason: BaseException | None) -> None:
        """Cancel those that run and wait for their cleanup. A cancellation that comes meanwhile is raised after it,
        unless `reason` is one that reaches further out.
        """
        for branch in self.running:
            self._machine.cancel(branch)
        late = reason if isinstance(reason, Cancelled) else None
        while self.running:
            try:
                await self.next()
            except Cancelled as again:
                late = outermost(late, again)
        if late is not None and late is not reason:
            raise late
