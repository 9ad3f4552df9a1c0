"""What the parts of the shell ask of the one who runs the runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import apsw

from node.workflow.log.store import Store
from node.workflow.serve.loaded import Item, Loaded

T = TypeVar("T")


class Runs(Protocol):
    """The runs of one log. `Executive` is the one there is."""

    accepting: bool

    @property
    def store(self) -> Store:
        """The reader. Raises NotOpen."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""

    def in_memory(self, run_id: str) -> bool:
        """Whether the run is in memory; it may not be in the file yet."""

    def load(self, run_id: str) -> Loaded:
        """A run that has not ended. Raises NoSuchRun."""

    def add(self, loaded: Loaded) -> None:
        """Take a new run into memory."""

    def send(self, loaded: Loaded, item: Item) -> None:
        """Put an input on its way to a run."""

    def look_at(self, due_ms: int) -> None:
        """Something is due at this time."""

    async def write(self, do: Callable[[apsw.Connection], T], about: str) -> T:
        """Have the writer do something in a transaction. Raises NotOpen, or NotRecorded that says `about` what."""

    def write_later(self, do: Callable[[apsw.Connection], None]) -> None:
        """Have the writer do something that nobody waits for."""
