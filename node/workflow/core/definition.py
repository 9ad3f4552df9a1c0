"""What an author has declared: workflows, activities and how often an activity is tried."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import typing
from collections.abc import Callable, Coroutine
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

from node.workflow.core.sandbox import Checks
from node.workflow.core.stepping import refuse_in_workflows
from node.workflow.errors import InvalidDefinition
from node.workflow.values.dataclass import dataclass
from node.workflow.values.payload import Decoder, decoder

P = ParamSpec("P")
LONGEST_S: Final = 1e10

R_co = TypeVar("R_co", covariant=True)

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    In = TypeVarWithDefault("In", contravariant=True, default=Any)
    Out = TypeVarWithDefault("Out", covariant=True, default=Any)
else:
    In, Out = TypeVar("In", contravariant=True), TypeVar("Out", covariant=True)


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is repeated. Intervals are seconds; `max_attempts=None` tries for ever.

    The n-th failure is followed by a wait of `initial_interval_s * backoff_coefficient ** (n - 1)`, at most
    `max_interval_s`, less up to the share `jitter` of it by chance; the time of the next attempt is recorded.
    An exception of a class in `non_retryable` ends the activity at once.
    """

    max_attempts: int | None = 5
    initial_interval_s: float = 0.5
    backoff_coefficient: float = 2.0
    max_interval_s: float = 60.0
    non_retryable: tuple[type[BaseException], ...] = ()
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise InvalidDefinition(f"max_attempts is {self.max_attempts}: at least 1, or None for no bound")
        intervals = (self.initial_interval_s, self.max_interval_s)
        if (
            not all(0 <= interval <= LONGEST_S for interval in intervals)
            or not 1 <= self.backoff_coefficient <= LONGEST_S
        ):
            raise InvalidDefinition(
                f"intervals are from 0 to {LONGEST_S:g} seconds, and backoff_coefficient is at least 1"
            )
        if not 0 <= self.jitter <= 1:
            raise InvalidDefinition(f"jitter is {self.jitter}: a share, from 0 to 1")

    def wait_s(self, attempt: int, error: BaseException, chance: float) -> float | None:
        """Seconds to wait after failed `attempt` (the first is 1), or None when it was the last one. `chance` is drawn
        from 0 to 1, and says how much of the jitter is taken.
        """
        if isinstance(error, self.non_retryable):
            return None
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        exponent = min(attempt - 1, 30)  # no overflow for an activity that is tried for ever
        wait_s = min(self.initial_interval_s * self.backoff_coefficient**exponent, self.max_interval_s)
        return wait_s * (1 - self.jitter * chance)


@dataclass(frozen=True, eq=False)
class Activity(Generic[P, R_co]):
    """A step that touches the world. It runs at least once. Calling it directly runs the plain function; workflow code
    that does so is blocked, and in the cleanup of a run that leaves memory the call raises.
    """

    name: str
    fn: Callable[P, Any]
    retry: Retry
    timeout_s: float | None
    is_async: bool
    schedule_to_close_s: float | None = None
    heartbeat_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("timeout_s", "schedule_to_close_s", "heartbeat_timeout_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= LONGEST_S:
                raise InvalidDefinition(f"{name} is {value}: more than 0 seconds, or None for no bound")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        refuse_in_workflows(f"activity {self.name}", f"runs it unrecorded: use ctx.run({self.name}, …)")
        return self.fn(*args, **kwargs)

    def options(
        self,
        *,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        schedule_to_close_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
    ) -> Activity[P, R_co]:
        """The same activity with another policy: `ctx.run(charge.options(timeout_s=5), order)`."""
        given = {
            "retry": retry,
            "timeout_s": timeout_s,
            "schedule_to_close_s": schedule_to_close_s,
            "heartbeat_timeout_s": heartbeat_timeout_s,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changes)

    def positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The arguments as one list, in the order of the signature. Raises InvalidDefinition when they don't fit."""
        least, most = _arity(self.fn)
        if not kwargs and least <= len(args) <= most:  # binding takes longer than all else that a step does here
            return list(args)
        try:
            bound = _signature(self.fn).bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidDefinition(f"activity {self.name}: {error}") from None
        if bound.kwargs:
            raise InvalidDefinition(
                f"activity {self.name}: keyword-only arguments can't be recorded; make them positional"
            )
        return list(bound.args)

    def check(self) -> None:
        """Resolve every type hint. Raises InvalidDefinition for one that can't be read back from JSON."""
        self.argument_decoders()
        self.result_decoder()

    def argument_decoders(self) -> tuple[Decoder, ...]:
        """How each recorded argument is read back, by the hints of the signature."""
        return _argument_decoders(self.fn, self.name)

    def result_decoder(self) -> Decoder:
        """How a recorded result is read back, by the return hint."""
        return _hint_decoder(self.fn, "return", self.name)


@dataclass(frozen=True, eq=False)
class Workflow(Generic[In, Out]):
    """A durable function `async def name(ctx)` or `async def name(ctx, input)`."""

    name: str
    fn: Callable[..., Coroutine[Any, Any, Any]]
    _parameter: inspect.Parameter | None = field(default=None, repr=False)
    checks: Checks = "off"

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return self.fn(*args, **kwargs)

    def arguments(self, value: Any) -> tuple[Any, ...]:
        """The typed arguments after `ctx` for JSON `value`. Raises InvalidInput that names the field."""
        parameter = self._parameter
        if parameter is None:
            if value is None:
                return ()
            decode_nothing = decoder(type(None), self.name)
            return (decode_nothing(value, "input"),)
        if value is None and parameter.default is not parameter.empty:
            return ()
        return (_hint_decoder(self.fn, parameter.name, self.name)(value, "input"),)

    def result_decoder(self) -> Decoder:
        """How the result of a child is read back, by the return hint. Raises InvalidDefinition."""
        return _hint_decoder(self.fn, "return", self.name)

    def check(self) -> None:
        """Resolve every type hint. Raises InvalidDefinition for one that can't be read back from JSON."""
        if self._parameter is not None:
            _hint_decoder(self.fn, self._parameter.name, self.name)


@functools.cache
def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(fn)


@functools.cache
def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(fn)
    except NameError as error:
        raise InvalidDefinition(
            f"{fn.__qualname__}: {error} while reading its type hints; declare the type at module level, "
            "imported at run time"
        ) from None


@functools.cache
def _hint_decoder(fn: Callable[..., Any], parameter: str, owner: str) -> Decoder:
    return decoder(_hints(fn).get(parameter, Any), owner)


@functools.cache
def _argument_decoders(fn: Callable[..., Any], owner: str) -> tuple[Decoder, ...]:
    return tuple(_hint_decoder(fn, name, owner) for name in _signature(fn).parameters)


@functools.cache
def _arity(fn: Callable[..., Any]) -> tuple[int, float]:
    """How few and how many arguments it takes by position; none fit where one must be given by its name."""
    least, most = 0, 0.0
    for parameter in _signature(fn).parameters.values():
        must = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind is parameter.KEYWORD_ONLY:
            least = sys.maxsize if must else least
        elif parameter.kind is not parameter.VAR_KEYWORD:
            least, most = least + must, most + 1
    return least, most


def parameter_decoders(fn: Callable[..., Any], owner: str) -> tuple[Decoder, ...]:
    """How each argument of a function is read from JSON, by its type hints. Raises InvalidDefinition."""
    hints = _hints(fn)
    return tuple(decoder(hints.get(name, Any), owner) for name in inspect.signature(fn).parameters)
