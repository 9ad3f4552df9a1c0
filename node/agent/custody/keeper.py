"""The guard keeps an agent running: starts it, hears whether it thinks, kills one that hangs, replaces it on reload."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from node import lock

log = structlog.get_logger()

SpawnAgent = Callable[[], "subprocess.Popen[bytes]"]

_STEP_S = 0.25
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
_STEADY_S = 20.0
_START_S = 60.0
# A step that took this long was this machine's pause: it says nothing about the agent.
_PAUSE_S = 5.0


def wait_before(failures: int) -> float:
    """Seconds until the agent is started again after it died `failures` times in a row soon after its start."""
    return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(failures, 10)) if failures else 0.0


class Keeper:
    """Whoever holds the agent's lock is the agent, our child or one that an earlier guard started."""

    def __init__(self, agent_lock: Path, spawn: SpawnAgent, *, silence_s: float) -> None:
        self._lock = agent_lock
        self._spawn = spawn
        self._silence_s = silence_s
        self._child: subprocess.Popen[bytes] | None = None
        self._heard_at = self._spoken_at = time.monotonic()
        self._spoke = False
        self._started_at = time.monotonic()
        self._failures = 0
        self._ended = False

    def heard(self) -> None:
        """The agent said something: it still thinks."""
        self._heard_at = self._spoken_at = time.monotonic()
        self._spoke = True

    def silent_s(self) -> float:
        """Seconds since any agent said anything, this machine's pauses aside."""
        return time.monotonic() - self._spoken_at

    async def run(self) -> None:
        """Keep one agent until cancelled."""
        while not self._ended:
            if not self._alive():
                await self._start()
            elif self._silent():
                log.warning("agent.hung", silence_s=self._silence_s, hint="it is killed and started again")
                self._signal(signal.SIGKILL)
                self._heard_at = time.monotonic()
            await self._step()

    async def _step(self) -> None:
        began = time.monotonic()
        await asyncio.sleep(_STEP_S)
        if time.monotonic() - began > _PAUSE_S:
            self._heard_at = self._spoken_at = time.monotonic()

    async def reload(self) -> None:
        """End the agent and leave its tenants as they are; `run` starts the new one."""
        log.info("agent.reload")
        self._failures = 0
        await self._end(10.0)

    async def end(self, patience_s: float = 5.0) -> None:
        """End the agent for good."""
        self._ended = True
        await self._end(patience_s)

    async def _end(self, patience_s: float) -> None:
        self._signal(signal.SIGTERM)
        until = time.monotonic() + patience_s
        if not await self._ended_by(until):
            self._signal(signal.SIGKILL)
            await self._ended_by(until + 5.0)

    async def _ended_by(self, until: float) -> bool:
        while self._alive() and time.monotonic() < until:  # noqa: ASYNC110 - another process's lock raises no event here
            await asyncio.sleep(0.05)
        return not self._alive()

    def _alive(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            log.warning("agent.died", code=self._child.returncode)
            steady = time.monotonic() - self._started_at >= _STEADY_S
            self._failures = 0 if steady or self._child.returncode == -signal.SIGTERM else self._failures + 1
            self._child = None
        return self._child is not None or lock.is_held(self._lock)

    def _silent(self) -> bool:
        limit = self._silence_s if self._spoke else max(self._silence_s, _START_S)
        return time.monotonic() - self._heard_at > limit

    async def _start(self) -> None:
        await asyncio.sleep(wait_before(self._failures))
        if self._ended:
            return
        self._started_at = self._heard_at = time.monotonic()
        self._spoke = False
        try:
            self._child = self._spawn()
            log.info("agent.started", pid=self._child.pid)
        except OSError as e:
            self._failures += 1
            log.warning("agent.unstartable", error=str(e))

    def _signal(self, number: signal.Signals) -> None:
        pid = self._child.pid if self._child is not None else lock.holder(self._lock)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
