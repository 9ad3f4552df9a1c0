"""A guard that came second: waits for the first one's death, and passes on to it what the machine's operator says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import structlog

from node import lock

log = structlog.get_logger()

_LOOK_S = 0.25
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StandIn:
    """What a supervisor holds in its hands when the guard that lives was started by an agent."""

    def __init__(self, guard_lock: Path) -> None:
        self._lock = guard_lock
        self._stopping = False

    async def wait(self) -> bool:
        """Wait for the lock. False: be the guard now; True: the other has left as it was told to, so end as well."""
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._pass_on, number)
        log.info("guard.stands_in", hint="another guard of this machine lives")
        while True:
            with contextlib.suppress(lock.Held):
                lock.take(self._lock)
                for number in _PASSED_ON:
                    loop.remove_signal_handler(number)
                return self._stopping
            await asyncio.sleep(_LOOK_S)

    def _pass_on(self, number: signal.Signals) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP
        pid = lock.holder(self._lock)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if number == signal.SIGINT else number)
