"""SQLite's file system with a fault at the n-th write, sync or truncation of the log and its WAL."""

from __future__ import annotations

import os
import signal
from typing import Any, Final, Literal

import apsw

Fault = Literal["kill", "torn", "error", "full"]
FAULTS: Final[tuple[Fault, ...]] = ("kill", "torn", "error", "full")
ERROR_WRITES: Final = 3


class Counter:
    """Counts operations; the `at`-th (from 1) meets the fault. An error or a full disk stays for ERROR_WRITES more."""

    def __init__(self, at: int, fault: Fault) -> None:
        self.seen = 0
        self._at = at
        self._fault = fault

    def before(self, file: Any, data: bytes | None = None, offset: int = 0) -> None:
        """Called before an operation. Raises apsw.IOError or apsw.FullError, or ends the process, at its time."""
        self.seen += 1
        if self._fault in ("kill", "torn"):
            if self.seen == self._at:
                if self._fault == "torn" and data is not None:
                    apsw.VFSFile.xWrite(file, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
        elif self._at <= self.seen < self._at + ERROR_WRITES:
            raise apsw.IOError("a fault of the test") if self._fault == "error" else apsw.FullError("a full disk")


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], counter: Counter) -> None:
        super().__init__("unix", name, flags)
        self._counter = counter

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._counter.before(self, bytes(data), offset)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._counter.before(self)
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:  # noqa: N802 - SQLite's name
        self._counter.before(self)
        super().xTruncate(size)


class FaultyDisk(apsw.VFS):
    """From now on every connection of this process writes through `counter`."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        super().__init__("faulty-disk", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802 - SQLite's name
        return _File(name, flags, self._counter)
