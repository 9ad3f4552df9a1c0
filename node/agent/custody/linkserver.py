"""The guard's end of the link: pushes the session to whoever is connected, hears heartbeats and answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.agent.custody import view as views
from node.agent.custody.view import View

_LINE_BYTES = 64 << 10
_UNREAD_BYTES = 1 << 20


class LinkServer:
    """Listens at `<runtime_dir>/guard.sock`. `heard` gets each message of the agent as a dict."""

    def __init__(self, runtime_dir: Path, current: Callable[[], View], heard: Callable[[dict[str, Any]], None]) -> None:
        self._path = runtime_dir / views.SOCKET
        self._current = current
        self._heard = heard
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; a socket file of a dead guard is replaced."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LINE_BYTES)
        self._path.chmod(0o600)

    def push(self) -> None:
        """Tell everyone the current view. One who does not read is dropped, never waited for."""
        line = views.encode(self._current())
        for writer in list(self._writers):
            if writer.transport.get_write_buffer_size() > _UNREAD_BYTES:
                writer.transport.abort()
                self._writers.discard(writer)
            else:
                writer.write(line)

    async def close(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(views.encode(self._current()))
        with contextlib.suppress(OSError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError):
            while line := await reader.readline():
                message = json.loads(line)
                if isinstance(message, dict):
                    self._heard(message)
                    if "heartbeat" in message:
                        writer.write(views.encode(self._current()))
        self._writers.discard(writer)
        writer.close()
