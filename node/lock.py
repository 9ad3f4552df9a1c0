"""Lock files that say whether a process lives: held for its whole life, free the moment it is dead, however it died."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path


class Held(Exception):
    """Another process holds this lock."""


def take(path: Path, *, wait_s: float = 0.0) -> int:
    """Take the lock and keep it until the process (or the last heir of the descriptor) ends; answers the descriptor.

    Exactly one of many that try wins. Give it a moment (`wait_s`): a look of `is_held` has it for an instant.
    Raises Held.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + wait_s
    while not _flock(fd, fcntl.LOCK_EX):
        if time.monotonic() >= until:
            os.close(fd)
            raise Held(f"another process holds {path}")
        time.sleep(0.01)
    return fd


def is_held(path: Path) -> bool:
    """Whether some process holds the lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(path: Path) -> int | None:
    """The pid of a process, other than this one, that has the locked file open, or None. Needs no pid file, so it is
    never a stale number; asks /proc, which costs milliseconds.
    """
    if not is_held(path):
        return None
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return None
    for pid in _pids():
        if any((s.st_dev, s.st_ino) == (wanted.st_dev, wanted.st_ino) for s in _open_files(pid)):
            return pid
    return None


def _pids() -> Iterator[int]:
    me = os.getpid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != me:
            yield int(entry.name)


def _open_files(pid: int) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to somebody else
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield fd.stat()
