"""What the programs with many runs share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import apsw

AT_ONCE = 500
LOOKS_A_SECOND = 20
PATIENCE_S = 600


async def spread(ids: Sequence[str], work: Callable[[str], Awaitable[object]]) -> None:
    """Do it for all, so many at once."""
    for first in range(0, len(ids), AT_ONCE):
        await asyncio.gather(*(work(run_id) for run_id in ids[first : first + AT_ONCE]))


async def until_waiting(path: Path, count: int) -> None:
    """Return once the log says that so many runs wait. Raises TimeoutError."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        for _ in range(PATIENCE_S * LOOKS_A_SECOND):
            if db.execute("SELECT count(*) FROM workflows WHERE waits <> '[]' AND closed_at IS NULL").get == count:
                return
            await asyncio.sleep(1 / LOOKS_A_SECOND)
        raise TimeoutError(f"not all {count} runs wait within {PATIENCE_S} s")
    finally:
        db.close()
