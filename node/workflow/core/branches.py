"""The coroutines of one run, driven by hand.

No asyncio: what runs next depends on nothing but the order in which futures are resolved, so the same log drives the
same code through the same steps, live and on replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, TypeAlias

from node.workflow.core.stepping import unwound
from node.workflow.errors import Cancelled, Evicted
from node.workflow.values.describe import raised_by_asyncio

UNWINDINGS: Final = 100  # code that catches everything and waits again is left to the garbage collector

Abandon: TypeAlias = Callable[["Future"], None]


class Future:
    """A value that workflow code waits for. `step` is the id of the recorded step that resolves it, if one does.

    `then` is called when it is resolved.
    """

    __slots__ = ("done", "error", "step", "then", "value", "waiter")

    def __init__(self, step: int | None = None, then: Callable[[], None] | None = None) -> None:
        self.step = step
        self.then = then
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiter: Branch | None = None

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.done:
            yield self
        if self.error is not None:
            raise self.error
        return self.value


class Branch:
    """One coroutine of a run: its body, or one of a gather. `cancelled` is to be thrown in when it runs next.

    `waiting` is done when the branch is to run and has not seen yet what it waited for.
    """

    __slots__ = ("cancelled", "coro", "error", "on_done", "value", "waiting")

    def __init__(self, coro: Coroutine[Any, Any, Any], on_done: Callable[[Branch], None]) -> None:
        self.coro = coro
        self.on_done = on_done
        self.waiting: Future | None = None
        self.cancelled: Cancelled | None = None
        self.value: Any = None
        self.error: BaseException | None = None


class Branches:
    """Runs the branches that can run, in the order they became able to.

    `abandon` hears of futures nobody waits for any more, and of those that are done and that nobody will look at.
    """

    def __init__(self, abandon: Abandon) -> None:
        self._abandon = abandon
        self._ready: deque[Branch] = deque()
        self._branches: dict[Branch, None] = {}
        self.current: Branch | None = None  # the one that runs now

    def spawn(self, coro: Coroutine[Any, Any, Any], on_done: Callable[[Branch], None]) -> Branch:
        """Add a coroutine; `on_done` is called when it has ended, with its `value` or its `error`."""
        branch = Branch(coro, on_done)
        self._branches[branch] = None
        self._ready.append(branch)
        return branch

    def resolve(self, future: Future, value: Any = None, error: BaseException | None = None) -> None:
        """Give `future` its value or error and make its waiter ready. A second time does nothing."""
        if future.done:
            return
        future.done, future.value, future.error = True, value, error
        waiter, future.waiter = future.waiter, None
        if waiter is not None:
            self._ready.append(waiter)
        if future.then is not None:
            future.then()

    def cancel(self, branch: Branch, scope: int | None = None) -> None:
        """Have `Cancelled` thrown into `branch` where it waits, or where it waits next.

        `scope` is the number of the scope that is cancelled, None for the whole branch; of two the outer one counts.
        """
        if branch not in self._branches:
            return
        branch.cancelled = outermost(branch.cancelled, Cancelled(scope))
        self._interrupt(branch)

    def _interrupt(self, branch: Branch) -> None:
        future = branch.waiting
        if future is not None and not future.done:
            branch.waiting = None
            future.waiter = None
            self._abandon(future)
            self._ready.append(branch)

    def run(self) -> tuple[Branch, object] | None:
        """Run until every branch waits. Returns None, or the branch that awaited what is none of ours (and stops), or
        was refused that by asyncio.
        """
        while self._ready:
            branch = self._ready.popleft()
            foreign = self._run_one(branch)
            if foreign is not None:
                return branch, foreign
        return None

    def _run_one(self, branch: Branch) -> object | None:
        self.current = branch
        try:
            if branch.cancelled is not None:
                cancelled, branch.cancelled = branch.cancelled, None
                if branch.waiting is not None:
                    self._abandon(branch.waiting)
                awaited = branch.coro.throw(cancelled)
            else:
                awaited = branch.coro.send(None)
        except StopIteration as stop:
            branch.value = stop.value
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the author's code raises is its outcome
            if raised_by_asyncio(error):
                return error
            branch.error = error
        else:
            if not isinstance(awaited, Future) or awaited.waiter is not None:
                return awaited if awaited is not None else "a bare yield"
            awaited.waiter = branch
            branch.waiting = awaited
            if branch.cancelled is not None:  # it cancelled its own scope and went on
                self._interrupt(branch)
            return None
        finally:
            self.current = None
        del self._branches[branch]
        branch.on_done(branch)
        return None

    def close(self) -> None:
        """Drop every coroutine. What its cleanup awaits never comes, so it is thrown out of that too."""
        for branch in reversed(self._branches):
            unwound(partial(_unwind, branch.coro))
        self._branches.clear()
        self._ready.clear()


def _unwind(coro: Coroutine[Any, Any, Any]) -> None:
    try:
        for _ in range(UNWINDINGS):
            coro.throw(Evicted())
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - what unwinding code says no longer counts, whatever it is
        pass


def outermost(first: Cancelled | None, second: Cancelled) -> Cancelled:
    """The one of two cancellations that reaches further out; the earlier one, when both reach as far."""
    if first is None or (first.scope is not None and (second.scope is None or second.scope < first.scope)):
        return second
    return first
