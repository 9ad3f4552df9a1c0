"""`@workflow` and `@activity`: how an author declares them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from node.workflow.core.context import Context
from node.workflow.core.definition import Activity, Retry, Workflow
from node.workflow.errors import InvalidDefinition
from node.workflow.values.dataclass import dataclass

P = ParamSpec("P")
R = TypeVar("R")
Input = TypeVar("Input")


@overload
def activity(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
@overload
def activity(fn: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(
    *,
    name: str | None = None,
    retry: Retry = ...,
    timeout_s: float | None = None,
    schedule_to_close_s: float | None = None,
    heartbeat_timeout_s: float | None = None,
) -> _ActivityDecorator: ...
def activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry = Retry(),  # noqa: B008 - it is frozen
    timeout_s: float | None = None,
    schedule_to_close_s: float | None = None,
    heartbeat_timeout_s: float | None = None,
) -> Any:
    """Declare an activity, `@activity` or `@activity(retry=…, timeout_s=…)`, from a sync or an async function.

    `timeout_s` bounds one attempt, `schedule_to_close_s` all of them together from the moment that it was asked for,
    and `heartbeat_timeout_s` the time between two calls of `heartbeat()`. A sync function runs on a thread: past its
    time the attempt counts as failed, but only a call of `heartbeat()` stops it, so without one the next attempt may
    overlap it. Arguments and result travel as JSON.
    """
    decorate = _ActivityDecorator(name, retry, timeout_s, schedule_to_close_s, heartbeat_timeout_s)
    return decorate if fn is None else decorate(fn)


@dataclass(frozen=True)
class _ActivityDecorator:
    name: str | None
    retry: Retry
    timeout_s: float | None
    schedule_to_close_s: float | None
    heartbeat_timeout_s: float | None

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Activity[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Activity[..., Any]:
        return Activity(
            self.name or fn.__name__,
            fn,
            self.retry,
            self.timeout_s,
            inspect.iscoroutinefunction(fn),
            self.schedule_to_close_s,
            self.heartbeat_timeout_s,
        )


@overload
def workflow(fn: Callable[[Context], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
@overload
def workflow(fn: Callable[[Context, Input], Coroutine[Any, Any, R]], /) -> Workflow[Input, R]: ...
@overload
def workflow(fn: Callable[..., Coroutine[Any, Any, R]], /) -> Workflow[Any, R]: ...
@overload
def workflow(*, name: str | None = None, strict: bool = False) -> _WorkflowDecorator: ...
def workflow(
    fn: Callable[..., Coroutine[Any, Any, Any]] | None = None, /, *, name: str | None = None, strict: bool = False
) -> Any:
    """Declare a workflow, `@workflow` or `@workflow(name=…)`, from `async def f(ctx)` or `async def f(ctx, input)`.

    `strict` blocks a run whose code reads the clock, chance, the network or a file past `ctx`, at some cost.
    Raises InvalidDefinition for another shape.
    """
    decorate = _WorkflowDecorator(name, strict)
    return decorate if fn is None else decorate(fn)


@dataclass(frozen=True)
class _WorkflowDecorator:
    name: str | None
    strict: bool

    @overload
    def __call__(self, fn: Callable[[Context], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
    @overload
    def __call__(self, fn: Callable[[Context, Input], Coroutine[Any, Any, R]], /) -> Workflow[Input, R]: ...
    @overload
    def __call__(self, fn: Callable[..., Coroutine[Any, Any, R]], /) -> Workflow[Any, R]: ...
    def __call__(self, fn: Callable[..., Coroutine[Any, Any, Any]], /) -> Workflow[Any, Any]:
        if not inspect.iscoroutinefunction(fn):
            raise InvalidDefinition(f"workflow {fn.__name__} must be `async def`")
        parameters = list(inspect.signature(fn).parameters.values())
        plain = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        if not plain or not 1 <= len(parameters) <= 2:
            raise InvalidDefinition(f"workflow {fn.__name__} takes `ctx` and at most one input")
        parameter = parameters[1] if len(parameters) == 2 else None
        return Workflow(self.name or fn.__name__, fn, parameter, "error" if self.strict else "off")
