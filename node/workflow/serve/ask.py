"""Asks runs: a query is answered by a replay of the run's log that is thrown away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from node.workflow.core.definition import Workflow
from node.workflow.core.machine import Machine
from node.workflow.errors import (
    InvalidInput,
    LogDamaged,
    NoSuchQuery,
    NotOpen,
    QueryFailed,
    QueryWrites,
    RunBlocked,
    UnknownWorkflow,
)
from node.workflow.log.store import Store
from node.workflow.values.run import RunRow


async def ask_run(
    store: Store, definitions: Mapping[str, Workflow], row: RunRow, name: str, arguments: Sequence[Any]
) -> Any:
    """The answer of a run, from a replay of its log. Raises what `Engine.query` raises."""
    definition = definitions.get(row.name)
    if definition is None:
        raise UnknownWorkflow(row.name, tuple(definitions))
    events = store.events(row.id)
    machine = Machine(definition, row.id)
    try:
        for _ in machine.replay_in_parts(events):
            await asyncio.sleep(0)
        machine.take_commands()
        return json.loads(_answer(machine, name, arguments))
    except (InvalidInput, LogDamaged, NoSuchQuery, NotOpen, QueryFailed, QueryWrites):
        raise
    except Exception as error:  # noqa: BLE001 - the code doesn't fit the log, whichever way it shows
        raise RunBlocked(row.id, {"type": type(error).__name__, "message": str(error)}) from None
    finally:
        machine.close()


def _answer(machine: Machine, name: str, arguments: Sequence[Any]) -> str:
    try:
        return machine.query(name, arguments)
    except (InvalidInput, NoSuchQuery, QueryWrites):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the author's handler raises
        raise QueryFailed(machine.run_id, name, f"{type(error).__name__}: {error}") from None
