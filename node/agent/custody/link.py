"""The agent's end of the link to its guard: the session as last heard, and the agent's answers.

The guard is restarted by whoever notices: an agent that lost it takes its lock for an instant, which only works when
it is dead, and starts another. A guard that hears nothing of the agent for long kills it, and the other way round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog

from node import lock
from node.agent.custody import view as views
from node.agent.custody.view import View

_HEARTBEAT_S = 1.0
_RECONNECT_S = 0.1
# Late enough for a busy machine, and with a restart still before anyone may call the session over.
_GUARD_SILENCE_S = 8.0
_START_S = 3.0
# A guard that is being started on a machine that is out of breath needs its time: a second one would take it away.
_HEIR_S = 60.0

StartGuard = Callable[[], "subprocess.Popen[bytes]"]

log = structlog.get_logger()


class GuardLink:
    """One agent's link. Use it from one event loop; `session` and `live` may be asked from any thread."""

    def __init__(self, runtime_dir: Path, start_guard: StartGuard | None) -> None:
        self._dir = runtime_dir
        self._start_guard = start_guard
        self._view: View | None = None
        self._first = asyncio.Event()
        self._changed: set[asyncio.Queue[View]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._settled: int | None = None
        self._released = False
        self._progress = 0
        self._heard_at = time.monotonic()
        self._started_at = -_START_S
        self._heir: subprocess.Popen[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: int | None = None

    @classmethod
    async def connect(cls, runtime_dir: Path, start_guard: StartGuard | None = None) -> GuardLink:
        """Become this machine's agent and hear the guard's first word.

        `start_guard` starts a guard in a session of its own (setsid) and returns at once; None: somebody else does.
        Raises lock.Held if another agent lives.
        """
        link = cls(runtime_dir, start_guard)
        link._lock = lock.take(runtime_dir / views.AGENT_LOCK, wait_s=2.0)
        link._tasks = [asyncio.create_task(link._talk()), asyncio.create_task(link._beat())]
        await link._first.wait()
        return link

    @property
    def session(self) -> View:
        """The session as last heard; it stays valid until its own deadline even if the guard is gone."""
        if self._view is None:
            raise RuntimeError("connect() has not returned yet")
        return self._view

    def live(self) -> bool:
        """Whether tenants may run and acknowledge right now: ask before each acknowledgement, after all else."""
        return self.session.live()

    def boot_id(self) -> str:
        """The kernel's id of this boot."""
        return self.session.boot_id

    async def changes(self) -> AsyncIterator[View]:
        """The current view, then each one that differs by more than a renewal, none skipped, in order."""
        queue: asyncio.Queue[View] = asyncio.Queue()
        self._changed.add(queue)
        try:
            yield self.session
            while True:
                yield await queue.get()
        finally:
            self._changed.discard(queue)

    async def settled(self, session: int) -> None:
        """Every tenant is in `session` or killed: say so until the guard has taken it (or is in another session)."""
        self._settled = session
        self._send({"settled": session})
        async for view in self.changes():
            if view.session != session or view.state != "settling":
                return

    async def released(self) -> None:
        """Every tenant is released: the guard may end the session. Said again to a guard that was restarted."""
        self._released = True
        self._send({"released": True})

    def progress(self) -> None:
        """Releasing goes on: the guard waits as long as it hears this now and then."""
        self._progress += 1

    async def close(self) -> None:
        """Hang up and let the next agent take over; tenants are left as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _talk(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._dir / views.SOCKET)
            except OSError:
                self._raise_guard()
                await asyncio.sleep(_RECONNECT_S)
                continue
            self._say_again()
            with contextlib.suppress(OSError, ValueError):
                while line := await reader.readline():
                    self._heard_at = time.monotonic()
                    self._take(views.decode(line))
            self._writer.close()
            self._writer = None

    def _say_again(self) -> None:
        self._heard_at = time.monotonic()
        self._send({"heartbeat": self._progress})
        if self._settled is not None:
            self._send({"settled": self._settled})
        if self._released:
            self._send({"released": True})

    def _take(self, view: View) -> None:
        before, self._view = self._view, view
        self._first.set()
        if before is None or not view.same_as(before):
            for queue in self._changed:
                queue.put_nowait(view)

    async def _beat(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_HEARTBEAT_S)
            self._send({"heartbeat": self._progress})
            if time.monotonic() - begun > _GUARD_SILENCE_S / 2:
                # We stood still, and perhaps the guard with us: killed now it would not freeze what it must.
                self._heard_at = time.monotonic()
            if self._writer is not None and time.monotonic() - self._heard_at > _GUARD_SILENCE_S:
                await self._replace_guard()

    async def _replace_guard(self) -> None:
        """The guard lives but says nothing: it could miss its deadline. Another goes on in its session."""
        pid = await asyncio.to_thread(lock.holder, self._dir / views.GUARD_LOCK)
        self._heard_at = time.monotonic()
        if pid is not None and self._start_guard is not None:
            log.warning("guard.hung", pid=pid, hint="it is killed; another goes on in the same session")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _raise_guard(self) -> None:
        left = self._view is not None and self._view.state == "gone"
        starting = self._heir is not None and self._heir.poll() is None
        soon = time.monotonic() - self._started_at < (_HEIR_S if starting else _START_S)
        if self._start_guard is None or left or soon:
            return
        if not lock.is_held(self._dir / views.GUARD_LOCK):
            self._started_at = time.monotonic()
            log.warning("guard.died", hint="another one is started")
            self._heir = self._start_guard()
