"""Who wants to hear when something came of a run: more of its log, or its end."""

from __future__ import annotations

import asyncio

from node.workflow.errors import NotOpen


class Watch:
    """Wakes those who wait for a run to go on. Nobody waiting costs nothing."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def touched(self, run_id: str) -> None:
        """It has come: those who wait for it go on."""
        if self._waiting:
            for future in self._waiting.pop(run_id, ()):
                if not future.done():
                    future.set_result(None)

    async def wait(self, run_id: str) -> None:
        """Return when the run is touched the next time. Raises NotOpen when the engine closes before."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(run_id, set())
        waiting.add(future)
        try:
            await future
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]

    def close(self) -> None:
        """Tell all who wait that the engine closes."""
        for waiting in self._waiting.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(NotOpen())
