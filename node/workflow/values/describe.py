"""Errors and values as short text that the log can keep."""

from __future__ import annotations

import os
import traceback
from typing import Any, Final

ERROR_TEXT_CHARS: Final = 4096
OWN_CODE: Final = __file__.removesuffix("values/describe.py")  # the library's own frames tell an author nothing
STDLIB: Final = os.path.dirname(os.__file__)  # noqa: PTH120 - text is what frames have; sysconfig costs 200 KB
_ASYNCIO: Final = os.path.join(STDLIB, "asyncio", "")  # noqa: PTH118 - the same


def describe_error(error: BaseException) -> dict[str, str]:
    """An exception as the log keeps it: type, message, traceback, each cut to a bounded length."""
    trace = traceback.TracebackException.from_exception(error)
    trace.stack = traceback.StackSummary.from_list([f for f in trace.stack if not f.filename.startswith(OWN_CODE)])
    lines = "".join(trace.format())
    return {
        "type": type(error).__qualname__,
        "message": _storable(cut(_message(error), ERROR_TEXT_CHARS)),
        "traceback": _storable(lines[-ERROR_TEXT_CHARS:]),
    }


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an author's __str__ may fail; that must not hide the failure it describes
        return "(its text can't be read)"


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def cut(text: str, length: int) -> str:
    """At most `length` characters of `text`; an ellipsis says that there was more."""
    return text if len(text) <= length else text[: length - 1] + "…"


def raised_by_asyncio(error: BaseException) -> bool:
    """Whether asyncio itself refused something: `asyncio.timeout` and `TaskGroup` do outside of its tasks."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not isinstance(error, RuntimeError):
        return False
    return trace.tb_frame.f_code.co_filename.startswith(_ASYNCIO)


def raised_at(error: BaseException) -> str:
    """The innermost line of the author's own code that an error came through."""
    found = "unknown place"
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith((OWN_CODE, STDLIB)):
            found = f"{frame.f_code.co_filename}:{line}"
    return found


def where(coro: Any) -> str:
    """The innermost line of the author's own code in a coroutine that waits."""
    found = "unknown place"
    code = getattr(coro, "cr_code", None)
    if getattr(coro, "cr_frame", None) is None and code is not None:  # it has ended
        return f"{code.co_filename}:{code.co_firstlineno}"
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        if not frame.f_code.co_filename.startswith((OWN_CODE, STDLIB)):
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coro = coro.cr_await
    return found
