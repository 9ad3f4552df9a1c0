"""Brings runs from the file into memory by replaying their log; a long one bit by bit, so that others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from node.workflow.core.definition import Workflow
from node.workflow.core.machine import Machine
from node.workflow.errors import LogDamaged, UnknownWorkflow
from node.workflow.log.store import Store
from node.workflow.serve.loaded import Loaded, fire_due_retries, replayed
from node.workflow.values.events import Event
from node.workflow.values.run import CLOSED, RunRow, Stats

LONG_HISTORY: Final = 1_000  # events
AT_OPEN: Final = 100  # runs that are loaded at once when the file is opened; the others one by one


class Loader:
    """Replays runs. `go_on` is called with one whose long history has been replayed."""

    def __init__(
        self,
        definitions: Mapping[str, Workflow],
        store: Callable[[], Store],
        now_ms: Callable[[], int],
        stats: Stats,
        go_on: Callable[[Loaded], None],
    ) -> None:
        self._definitions = definitions
        self._store = store
        self._now_ms = now_ms
        self._stats = stats
        self._go_on = go_on
        self._tasks: set[asyncio.Task[None]] = set()

    def load(self, row: RunRow) -> Loaded:
        """The run of this row; with a long history it is `loading` for a while. Blocked when the code does not fit."""
        timers = self._store().timers(row.id)
        definition = self._definitions.get(row.name)
        if definition is None:
            loaded = Loaded(row, None, timers, counted=row.state)
            loaded.block(UnknownWorkflow(row.name, tuple(self._definitions)))
            return loaded
        if row.last_seq > LONG_HISTORY:
            loaded = Loaded(row, None, timers, counted=row.state, loading=True)
            self._begin(self._load_long(loaded, definition))
            return loaded
        try:
            events = self._store().events(row.id)
        except LogDamaged as error:
            loaded = Loaded(row, None, timers, counted=row.state)
            loaded.block(error)
            return loaded
        self._stats.replayed_events += len(events)
        heartbeats = self._store().heartbeats(row.id) if row.active or timers else {}
        return replayed(definition, row, events, timers, self._now_ms(), heartbeats)

    def each(self, run_ids: Sequence[str], do: Callable[[str], None]) -> None:
        """Do something with those that are still open: with the first ones now, with the others one by one."""
        for run_id in run_ids[:AT_OPEN]:
            do(run_id)
        if len(run_ids) > AT_OPEN:
            self._begin(self.one_by_one(run_ids[AT_OPEN:], do))

    async def one_by_one(self, run_ids: Sequence[str], do: Callable[[str], None]) -> None:
        """The same, letting others go on in between."""
        for run_id in run_ids:
            row = self._store().row(run_id)
            if row is not None and row.state not in CLOSED:
                do(run_id)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop what is under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _load_long(self, loaded: Loaded, definition: Workflow) -> None:
        machine, row = Machine(definition, loaded.row.id), loaded.row
        events: list[Event] = []
        try:
            while part := self._store().events(row.id, len(events), LONG_HISTORY):
                events += part
                await asyncio.sleep(0)
            for _ in machine.replay_in_parts(events):
                await asyncio.sleep(0)
            loaded.heartbeats = self._store().heartbeats(row.id)
            loaded.machine = machine
            fire_due_retries(loaded, self._now_ms())
        except Exception as error:  # noqa: BLE001 - the code doesn't fit, whichever way it shows
            loaded.block(error)
        finally:
            loaded.loading = False
            if loaded.machine is None:
                machine.close()
        self._stats.replayed_events += len(events)
        self._go_on(loaded)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
