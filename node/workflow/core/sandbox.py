"""Catches workflow code that reads the clock, chance, the network or a file, in development.

While workflow code is stepped, and only on its thread, calls of built-in functions are looked at with a profile
function, and what opens files, sockets and processes with an audit hook. Nothing of this is there when it is off.
"""

from __future__ import annotations

import datetime
import gc
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Literal, TypeAlias, TypeVar

import apsw

from node.workflow.errors import Nondeterministic
from node.workflow.values.describe import OWN_CODE, STDLIB

T = TypeVar("T")
Checks: TypeAlias = Literal["off", "warn", "error"]

_SITE: Final = os.path.dirname(os.path.dirname(apsw.__file__))  # noqa: PTH120 - where what is installed lies
_LOGGING: Final = logging.__file__.rpartition("/")[0]
_CLOCK: Final = "reads the clock: use ctx.now() or ctx.sleep(…)"
_CHANCE: Final = "draws by chance: use ctx.random() or ctx.uuid()"
_OUTSIDE: Final = "touches the world: do that in an activity"
_FUNCTIONS: Final = {
    **{
        ("time", n): _CLOCK for n in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    },
    **{("time", n): _CLOCK for n in ("process_time", "thread_time", "sleep")},
    **{("posix", n): _CHANCE for n in ("urandom", "getrandom")},
    ("_uuid", "generate_time_safe"): _CHANCE,
    ("_thread", "start_new_thread"): "starts a thread: use ctx.gather(…), or do that in an activity",
}
_NAMES: Final = frozenset({name for _, name in _FUNCTIONS} | {"now", "utcnow", "today", "random", "getrandbits"})
_EVENTS: Final = frozenset(
    {
        "open",
        *(f"os.{name}" for name in ("listdir", "scandir", "mkdir", "remove", "rename", "rmdir")),
        *(f"os.{name}" for name in ("system", "exec", "fork", "posix_spawn")),
        *(f"socket.{name}" for name in ("connect", "bind", "getaddrinfo", "gethostbyname")),
        "subprocess.Popen",
        "sqlite3.connect",
    }
)


class NondeterministicWarning(UserWarning):
    """Workflow code did something that a replay would not see the same way."""


class Sandbox:
    """Steps workflow code and tells what it must not do: as a warning, once for each line, or as an error."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._seen: set[tuple[str, int, str]] = set()
        self._found: Nondeterministic | None = None
        _install()

    def run(self, step: Callable[[], T]) -> T:
        """What `step` returns. Raises Nondeterministic when it is strict and has caught something."""
        before, collects = sys.getprofile(), gc.isenabled()
        gc.disable()  # what runs in a collection is not the author's doing, wherever it happens to begin
        _state.sandbox = self
        sys.setprofile(self._profile)
        try:
            result = step()
        finally:
            sys.setprofile(before)
            _state.sandbox = None
            found, self._found = self._found, None  # it is this run's, and no other's
            if collects:
                gc.enable()
        if found is not None:
            raise found
        return result

    def tell(self, what: str, why: str, frame: FrameType | None) -> None:
        """Something that may be the author's doing. Raises Nondeterministic when it is and this is strict."""
        line = _author(frame)
        if line is None or (*line, what) in self._seen:
            return
        path, number = line
        if self._strict:
            self._found = Nondeterministic(what, why, f"{path}:{number}")
            raise self._found
        self._seen.add((*line, what))
        _state.sandbox = None  # the warning itself reads files
        try:
            warnings.warn_explicit(f"workflow code calls {what}, which {why}", NondeterministicWarning, path, number)
        finally:
            _state.sandbox = self

    def _profile(self, frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call" or called.__name__ not in _NAMES or _state.sandbox is None:
            return
        owner = called.__self__
        if isinstance(owner, type):
            if issubclass(owner, datetime.date) and called.__name__ in ("now", "utcnow", "today"):
                self.tell(f"{owner.__name__}.{called.__name__}", _CLOCK, frame)
        elif isinstance(owner, random.Random):
            if owner is random.random.__self__:  # type: ignore[attr-defined] # the one that all share; others are seeded
                self.tell(f"random.{called.__name__}", _CHANCE, frame)
        elif (why := _FUNCTIONS.get((called.__module__, called.__name__))) is not None:
            self.tell(f"{called.__module__}.{called.__name__}".replace("posix.", "os."), why, frame)


class _State(threading.local):
    sandbox: Sandbox | None = None


_state = _State()
_sandboxes: dict[bool, Sandbox] = {}


def sandbox_for(checks: Checks) -> Sandbox | None:
    """Who steps the code of a workflow with these checks; None: nobody looks."""
    if checks == "off":
        return None
    strict = checks == "error"
    return _sandboxes.setdefault(strict, _sandboxes.get(strict) or Sandbox(strict))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    sandbox = _state.sandbox
    if sandbox is not None and event in _EVENTS:
        sandbox.tell(event, _OUTSIDE, sys._getframe(1))


_installed = False


def _install() -> None:
    """An audit hook stays for the life of the process, so there is one."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_audit)


def _author(frame: FrameType | None) -> tuple[str, int] | None:
    """File and line of the author's code that led here; None when it is the library, an import or a log message."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith((OWN_CODE, "<frozen importlib", _LOGGING)):
            return None
        if not path.startswith(("<frozen", STDLIB)) or path.startswith(_SITE):
            return path, frame.f_lineno
        frame = frame.f_back
    return None
