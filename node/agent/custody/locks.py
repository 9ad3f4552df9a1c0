"""Which processes hold a reader's lock on a database's log, by the kernel's own list.

While Litestream's long read transaction lasts nobody can reset the log under it; without it a checkpoint of the
application could drop frames that were never copied, and no other sign would tell.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

# SQLite's own: bytes of the `-shm` file that readers lock.
FIRST, LAST = 123, 127
_FRESH_S = 2.0

Place = tuple[int, int, int]
"""Major and minor number of a file's device, and its inode."""


def readers(proc_locks: str) -> Mapping[Place, frozenset[int]]:
    """Every file with a reader's lock, and the ids of the processes that hold one; `proc_locks` is /proc/locks. Pure.

    Lines look like `1: POSIX  ADVISORY  READ 1234 08:01:5678 124 124`; one of a waiting process has a `->`.
    """
    found: dict[Place, set[int]] = defaultdict(set)
    for line in proc_locks.splitlines():
        fields = line.split()
        if len(fields) != 8 or fields[1] not in ("POSIX", "OFDLCK") or fields[3] != "READ":
            continue
        first, last = int(fields[6]), LAST if fields[7] == "EOF" else int(fields[7])
        if first <= LAST and last >= FIRST:
            major, minor, inode = fields[5].split(":")
            found[int(major, 16), int(minor, 16), int(inode)].add(int(fields[4]))
    return {place: frozenset(pids) for place, pids in found.items()}


class Locks:
    """The kernel's list, read at most every few seconds however many tenants ask. Safe from many threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at = -_FRESH_S
        self._readers: Mapping[Place, frozenset[int]] = {}

    def held(self, place: Place, program: str) -> bool:
        """Whether a process of that name holds a reader's lock there. Without the list: True, not known."""
        with self._lock:
            if self._monotonic() - self._read_at >= _FRESH_S:
                try:
                    self._readers = readers(Path("/proc/locks").read_text())
                except OSError:
                    return True
                self._read_at = self._monotonic()
            pids = self._readers.get(place, frozenset())
        return any(_name(pid) == program for pid in pids)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
