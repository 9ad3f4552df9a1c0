"""The gateway's door to its agent: a unix socket that HAProxy's user alone can open, a line to ask and one to answer.

where TENANT   here | nobody | absent REASON; after `here` the map of routes has it
doubt TENANT   ok; where it was routed to does not answer for it: look again
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from node.agent.gateway.table import TENANT
from node.agent.whereabouts import Absent, Elsewhere, Nobody, Whereabouts

log = structlog.get_logger()

LINE_BYTES = 256
PATIENCE_S = 5.0


class GatewayDoor:
    """Served on the running event loop. `where` and `doubt` are the finder's."""

    def __init__(
        self,
        path: Path,
        uid: int,
        where: Callable[[str], Awaitable[Whereabouts]],
        doubt: Callable[[str], Awaitable[None]],
    ) -> None:
        self._path = path
        self._uid = uid
        self._where = where
        self._doubt = doubt
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen; a socket file that an earlier agent left is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self._path))
        os.chown(self._path, self._uid, self._uid)
        self._path.chmod(0o600)
        self._server = await asyncio.start_unix_server(self._connected, sock=sock, limit=LINE_BYTES)

    async def close(self) -> None:
        """Stop listening; questions that are open get no answer."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = (await reader.readline()).decode("ascii", "replace")
                writer.write((await self._answer(line) + "\n").encode())
                await writer.drain()
        except (TimeoutError, ValueError, OSError) as e:
            log.debug("the gateway's question was not answered", error=str(e))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, line: str) -> str:
        verb, _, tenant = line.strip().partition(" ")
        if not TENANT.fullmatch(tenant):
            return "nobody"
        if verb == "doubt":
            await self._doubt(tenant)
            return "ok"
        match await self._where(tenant):
            case Elsewhere():
                return "here"
            case Absent(reason):
                return f"absent {reason}"
            case Nobody():
                return "nobody"
