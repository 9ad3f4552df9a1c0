"""DBOS on SQLite: `default` as it comes (rollback journal, synchronous FULL), `wal` with WAL and synchronous NORMAL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID

sys.path.insert(0, str(Path(__file__).parent))
from loop import STEPS, arguments, measure


@DBOS.step()
async def one(n: int) -> int:
    return n + 1


@DBOS.workflow()
async def ten(n: int) -> int:
    for _ in range(STEPS):
        n = await one(n)
    return n


def faster(connection: Any, _: object) -> None:
    """WAL and NORMAL on every connection."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


async def main() -> None:
    folder, durability, at_once, seconds = arguments()
    if durability == "wal":
        sa.event.listen(sa.engine.Engine, "connect", faster)
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()

    async def run(run_id: str) -> None:
        with SetWorkflowID(run_id):
            assert await ten(0) == STEPS

    await measure(run, at_once, seconds)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
