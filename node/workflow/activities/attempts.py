"""One attempt of an activity: run it, bounded in time, and say as an event what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from node.workflow.activities.heartbeat import RECORDED_EVERY_S, Pulse, reset_pulse, set_pulse
from node.workflow.activities.threads import Outcome, Threads
from node.workflow.core.command import Pending
from node.workflow.core.definition import Activity
from node.workflow.errors import InvalidInput, NotOpen, NotStorable
from node.workflow.values.dataclass import dataclass
from node.workflow.values.describe import describe_error
from node.workflow.values.events import Draft, Kind
from node.workflow.values.payload import encode, parse


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """What activity code may know of itself.

    `idempotency_key` is the same for every attempt of this step, over restarts and moves to another machine: hand it
    to whoever is called, so that a repeated attempt acts once. `attempt` counts from 1; one that a crash cut off is
    not counted. `heartbeat_details` is what the last `heartbeat(details)` of an earlier attempt said, as plain JSON.
    """

    run_id: str
    workflow: str
    activity: str
    idempotency_key: str
    attempt: int
    heartbeat_details: Any = None


_current: contextvars.ContextVar[ActivityInfo] = contextvars.ContextVar("activity_info")


def activity_info() -> ActivityInfo:
    """The attempt that the calling activity code runs in. Raises LookupError outside of one."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is to run: the next attempt of `step`. `record` keeps the details of a heartbeat; `last` is the newest one
    kept, both JSON text.
    """

    run_id: str
    workflow: str
    step: Pending
    record: Callable[[str], None]
    last: str | None = None

    async def run(self, threads: Threads, now_ms: Callable[[], int]) -> Draft:
        """Run it to its end. Returns the event to record; raises only CancelledError."""
        step, activity, number = self.step, self.step.activity, self.step.failed_attempts + 1
        if activity is None or step.command.payload is None:
            raise NotOpen
        facts: dict[str, Any] = {"id": step.command.id, "attempt": number}
        limits = _Limits(activity, min(0, step.scheduled_ms - now_ms()))  # the clock may have gone back
        try:
            arguments = _arguments(activity, step.command.payload)
            result = await self._bounded(activity, self._info(activity, number), arguments, threads, limits)
            return Draft(Kind.ACTIVITY_COMPLETED, facts, encode(result, f"the result of activity {activity.name}"))
        except (InvalidInput, NotStorable) as error:  # the same every time
            return Draft(Kind.ACTIVITY_FAILED, {**facts, "error": describe_error(error)})
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the author's code raises is the attempt's outcome
            wait_s = activity.retry.wait_s(number, error, random.random())  # noqa: S311 - spreads load, keeps no secret
            facts["error"] = describe_error(error)
            if wait_s is None or limits.closed_after(wait_s):
                return Draft(Kind.ACTIVITY_FAILED, facts)
            return Draft(Kind.ATTEMPT_FAILED, {**facts, "due": now_ms() + round(1000 * wait_s)})

    def _info(self, activity: Activity[..., Any], number: int) -> ActivityInfo:
        details = None if self.last is None else json.loads(self.last)
        key = f"{self.run_id}:{self.step.command.id}"
        return ActivityInfo(self.run_id, self.workflow, activity.name, key, number, details)

    async def _bounded(
        self, activity: Activity[..., Any], info: ActivityInfo, arguments: list[Any], threads: Threads, limits: _Limits
    ) -> Any:
        every_s = min(RECORDED_EVERY_S, (activity.heartbeat_timeout_s or RECORDED_EVERY_S) / 2)
        pulse = Pulse(asyncio.get_running_loop(), self.record, every_s)
        token, pulse_token = _current.set(info), set_pulse(pulse)
        bound: asyncio.Timeout | None = None
        try:
            if limits.none:
                value, error = await _call(activity, arguments, threads)
            else:
                async with asyncio.timeout_at(limits.close_at) as bound:
                    pulse.beaten = partial(limits.beat, bound)
                    value, error = await _call(activity, arguments, threads, partial(limits.begin, bound))
        except TimeoutError:
            if bound is not None and bound.expired():
                raise TimeoutError(limits.reason) from None
            raise
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # the run is cancelled or the engine closes: nothing is recorded
            raise RuntimeError("the activity cancelled itself") from None
        finally:
            pulse.end()
            _current.reset(token)
            reset_pulse(pulse_token)
        if error is not None:
            raise error
        return value


async def _call(
    activity: Activity[..., Any], arguments: list[Any], threads: Threads, begin: Callable[[], None] | None = None
) -> Outcome:
    """The value or the error of the author's code; an async function raises its own. `begin` is called before it."""
    if not activity.is_async:
        await threads.place()
    if begin is not None:
        begin()
    if activity.is_async:
        return await activity.fn(*arguments), None
    return await threads.call(activity.fn, arguments)


class _Limits:
    """When an attempt is past its time, on the loop's clock, and which of its limits that was."""

    def __init__(self, activity: Activity[..., Any], since_scheduled_ms: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._activity = activity
        whole_s = activity.schedule_to_close_s
        self.close_at = None if whole_s is None else self._loop.time() + whole_s + since_scheduled_ms / 1000
        self._attempt_ends_at: float | None = None
        self._beat_by: float | None = None

    @property
    def none(self) -> bool:
        """Whether it may take as long as it likes."""
        return self.close_at is None and self._activity.timeout_s is None and self._activity.heartbeat_timeout_s is None

    def begin(self, bound: asyncio.Timeout) -> None:
        """The author's code is called now."""
        if self._activity.timeout_s is not None:
            self._attempt_ends_at = self._loop.time() + self._activity.timeout_s
        self.beat(bound)

    def beat(self, bound: asyncio.Timeout) -> None:
        """It has said that it lives."""
        if self._activity.heartbeat_timeout_s is not None:
            self._beat_by = self._loop.time() + self._activity.heartbeat_timeout_s
        times = [at for at in (self.close_at, self._attempt_ends_at, self._beat_by) if at is not None]
        if times and not bound.expired():
            bound.reschedule(min(times))

    def closed_after(self, wait_s: float) -> bool:
        """Whether there is no time left for an attempt after `wait_s` seconds."""
        return self.close_at is not None and self._loop.time() + wait_s >= self.close_at

    @property
    def reason(self) -> str:
        """Which limit came first."""
        limits = (
            (self._attempt_ends_at, f"no end within timeout_s={self._activity.timeout_s}"),
            (self._beat_by, f"no heartbeat within heartbeat_timeout_s={self._activity.heartbeat_timeout_s}"),
            (self.close_at, f"no end within schedule_to_close_s={self._activity.schedule_to_close_s}"),
        )
        return min((at, reason) for at, reason in limits if at is not None)[1]


def _arguments(activity: Activity[..., Any], payload: str) -> list[Any]:
    decoders, values = activity.argument_decoders(), parse(payload)
    if len(values) > len(decoders):  # *args: the last hint is for each of them
        decoders += (decoders[-1],) * (len(values) - len(decoders))
    return [
        decode(value, f"argument {i + 1} of {activity.name}")
        for i, (decode, value) in enumerate(zip(decoders, values, strict=False))
    ]
