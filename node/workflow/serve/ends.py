"""Who waits for a run's end, and which ends are not told yet because they are not known to be durable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from node.workflow.serve.gate import Gate
from node.workflow.serve.watch import Watch

BEFORE_THIS_PROCESS: Final = 0  # the mark of every commit that the file had when it was opened


class Ends:
    """The ends of runs. An end is hidden from the moment it is handed to the writer until it is confirmed."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._hidden: set[str] = set()
        self._waiting = Watch()
        self.on_told: Callable[[str], None] = lambda run_id: None

    @property
    def hidden(self) -> tuple[str, ...]:
        """The runs whose end is on its way or not confirmed."""
        return tuple(self._hidden)

    def is_hidden(self, run_id: str) -> bool:
        """Whether the run's end is on its way or not confirmed."""
        return run_id in self._hidden

    def hide(self, run_id: str) -> None:
        """The run's end is on its way into the file: a reader may see it from now on."""
        self._hidden.add(run_id)

    def dropped(self, run_id: str) -> None:
        """The end was not written."""
        self._hidden.discard(run_id)

    def recorded(self, run_id: str, commit: int) -> None:
        """The end is in the file: tell it once its commit is confirmed."""
        self._gate.when(commit, partial(self._confirmed, run_id))

    def is_told(self, run_id: str) -> bool:
        """Whether the end of a run that is closed in the file is known to be durable."""
        return run_id not in self._hidden and self._gate.is_confirmed(BEFORE_THIS_PROCESS)

    async def wait(self, run_id: str, closed: bool) -> None:
        """Return once the run has ended and its end is durable. `closed`: it has ended in the file. Raises NotOpen."""
        if closed and run_id not in self._hidden:
            await self._gate.wait(BEFORE_THIS_PROCESS)
            return
        await self._waiting.wait(run_id)

    def close(self) -> None:
        """Tell all who wait that the engine closes."""
        self._waiting.close()

    def _confirmed(self, run_id: str) -> None:
        self._hidden.discard(run_id)
        self.on_told(run_id)
        self._waiting.touched(run_id)
