"""One attempt of an activity: run it, bounded in time, and say as an event what came of it."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.workflow.command import Pending
from node.workflow.define import Activity
from node.workflow.describe import describe_error
from node.workflow.errors import InvalidInput, NotOpen, NotStorable
from node.workflow.events import Draft, Kind
from node.workflow.payload import encode
from node.workflow.threads import Threads


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """What activity code may know of itself.

    `idempotency_key` is the same for every attempt of this step, over restarts and moves to another machine: hand it
    to whoever is called, so that a repeated attempt acts once. `attempt` counts from 1; one that a crash cut off is
    not counted.
    """

    run_id: str
    workflow: str
    activity: str
    idempotency_key: str
    attempt: int


_current: contextvars.ContextVar[ActivityInfo] = contextvars.ContextVar("activity_info")


def activity_info() -> ActivityInfo:
    """The attempt that the calling activity code runs in. Raises LookupError outside of one."""
    return _current.get()


async def attempt(run_id: str, workflow: str, step: Pending, threads: Threads, now_ms: Callable[[], int]) -> Draft:
    """Run the next attempt of `step` to its end. Returns the event to record; raises only CancelledError."""
    activity, number = step.activity, step.failed_attempts + 1
    if activity is None or step.command.payload is None:
        raise NotOpen
    facts: dict[str, Any] = {"id": step.command.id, "attempt": number}
    info = ActivityInfo(run_id, workflow, activity.name, f"{run_id}:{step.command.id}", number)
    try:
        result = await _bounded(activity, info, _arguments(activity, step.command.payload), threads)
        return Draft(Kind.ACTIVITY_COMPLETED, facts, encode(result, f"the result of activity {activity.name}"))
    except (InvalidInput, NotStorable) as error:  # the same every time
        return Draft(Kind.ACTIVITY_FAILED, {**facts, "error": describe_error(error)})
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the author's code raises is the attempt's outcome
        wait_s = activity.retry.wait_s(number, error)
        facts["error"] = describe_error(error)
        if wait_s is None:
            return Draft(Kind.ACTIVITY_FAILED, facts)
        return Draft(Kind.ATTEMPT_FAILED, {**facts, "due": now_ms() + round(1000 * wait_s)})


def _arguments(activity: Activity[..., Any], payload: str) -> list[Any]:
    decoders, values = activity.argument_decoders(), json.loads(payload)
    if len(values) > len(decoders):  # *args: the last hint is for each of them
        decoders += (decoders[-1],) * (len(values) - len(decoders))
    return [
        decode(value, f"argument {i + 1} of {activity.name}")
        for i, (decode, value) in enumerate(zip(decoders, values, strict=False))
    ]


async def _bounded(activity: Activity[..., Any], info: ActivityInfo, arguments: list[Any], threads: Threads) -> Any:
    token = _current.set(info)
    try:
        if not activity.is_async:
            await threads.place()
        async with asyncio.timeout(activity.timeout_s) as bound:
            if activity.is_async:
                return await activity.fn(*arguments)
            value, error = await threads.call(activity.fn, arguments)
    except TimeoutError:
        if bound.expired():
            raise TimeoutError(f"no end within timeout_s={activity.timeout_s}") from None
        raise
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise  # the run is cancelled or the engine closes: nothing is recorded
        raise RuntimeError("the activity cancelled itself") from None
    finally:
        _current.reset(token)
    if error is not None:
        raise error
    return value
