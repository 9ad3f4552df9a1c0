"""While workflow code is stepped, it is in no task, and what it calls past its context is refused.

asyncio's own timeouts belong to the task that they are entered in: that of whoever happens to start or signal the run,
which would be cancelled in place of the run.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from asyncio import _get_running_loop, current_task
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable
from typing import TypeVar

from node.workflow.errors import Nondeterministic
from node.workflow.values.describe import OWN_CODE

T = TypeVar("T")


class _State(threading.local):
    stepping: bool = False
    refused: Nondeterministic | None = None


_state = _State()


def stepped(step: Callable[[], T]) -> T:
    """What `step` returns, which runs workflow code. Raises what it raises, or Nondeterministic when the code did what
    is refused.
    """
    loop, state = _get_running_loop(), _state
    task = None if loop is None else current_task(loop)
    if task is not None:
        _leave_task(loop, task)  # type: ignore[arg-type] # a task has a loop
    state.stepping = True
    try:
        result = step()
    except BaseException:
        state.refused = None  # it is this run's, and no other's
        raise
    finally:
        state.stepping = False
        if task is not None:
            _enter_task(loop, task)  # type: ignore[arg-type] # the same
    if state.refused is not None:
        refused, state.refused = state.refused, None
        raise refused
    return result


def unwound(unwind: Callable[[], None]) -> None:
    """Call `unwind`, which throws workflow code out of where it waits. Its cleanup is refused the same, and nobody is
    told: the run leaves memory, and is blocked if it ever comes to that code in earnest.
    """
    with contextlib.suppress(Nondeterministic):
        stepped(unwind)


def refuse_in_workflows(what: str, why: str) -> None:
    """Called by what workflow code must not call. Raises Nondeterministic when it does, and the run is blocked even if
    the code catches that.
    """
    if not _state.stepping:
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN_CODE):
        frame = frame.f_back
    _state.refused = Nondeterministic(what, why, f"{frame.f_code.co_filename}:{frame.f_lineno}")
    raise _state.refused
