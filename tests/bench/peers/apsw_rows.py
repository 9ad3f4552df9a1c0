"""The floor: raw apsw inserting the rows that a workflow of ten steps leaves, with the same group commit in one loop.

A step is two rows of the log, its intent and its result, written in two commits, and an update of the run's row.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import apsw

from tests.bench.peers.loop import STEPS, arguments, measure

SCHEMA = """
CREATE TABLE log (workflow TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL,
                  body TEXT NOT NULL, PRIMARY KEY (workflow, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE workflows (id TEXT NOT NULL PRIMARY KEY, last_seq INTEGER NOT NULL, updated_at INTEGER NOT NULL)
  STRICT, WITHOUT ROWID;
"""


_UPSERT = """
INSERT INTO workflows VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET last_seq = excluded.last_seq, updated_at = excluded.updated_at
"""


class Log:
    """Rows that wait, and the task that commits whatever waits at once."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._db = apsw.Connection(str(path))
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute(SCHEMA)
        self._waiting: list[tuple[tuple[str, int, int, str, str], asyncio.Future[None]]] = []
        self._due = asyncio.Event()
        self._task = asyncio.create_task(self._commit())

    async def append(self, run_id: str, seq: int, kind: str, body: str) -> None:
        """One row; returns when it is committed."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(((run_id, seq, time.time_ns() // 1_000_000, kind, body), done))
        self._due.set()
        await done

    async def _commit(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            batch, self._waiting = self._waiting, []
            with self._db:
                self._db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", [row for row, _ in batch])
                self._db.executemany(
                    _UPSERT,
                    [row[:3] for row, _ in batch],
                )
            for _, done in batch:
                done.set_result(None)


async def main() -> None:
    folder, durability, at_once, seconds = arguments()
    log = Log(folder / "log.db", durability)

    async def run(run_id: str) -> None:
        await log.append(run_id, 1, "started", '{"name":"ten","seed":"0123456789abcdef","input":0}')
        for step in range(STEPS):
            scheduled = f'{{"id":{step},"name":"one","hash":"0123456789abcdef","args":[{step}]}}'
            await log.append(run_id, 2 * step + 2, "activity_scheduled", scheduled)
            await log.append(run_id, 2 * step + 3, "activity_completed", f'{{"id":{step},"attempt":1,"result":{step}}}')
        await log.append(run_id, 2 * STEPS + 2, "completed", '{"hash":"0123456789abcdef","result":10}')

    await measure(run, at_once, seconds)


if __name__ == "__main__":
    asyncio.run(main())
