"""One process serves a log: who does holds the lock file beside it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from node.workflow.errors import AlreadyServed


def hold(path: Path) -> IO[bytes]:
    """Hold the lock file beside the log. Not the log itself: closing it would drop SQLite's own locks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyServed(str(path)) from None
    return file
