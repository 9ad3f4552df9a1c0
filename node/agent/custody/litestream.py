"""Litestream's control socket: HTTP/1.1 over a Unix socket, connections kept.

`/sync` is always sent with `timeout: -1`. With a positive one, or none, the handler's context is cancelled when the
request ends, and Litestream loses the read transaction that keeps the application from resetting the WAL: rows vanish
silently. Callers bound their own waiting instead, and leave the call alone.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

_LONGEST_PATH = 100
_BIGGEST_ANSWER = 1 << 20


class SocketError(Exception):
    """The sidecar did not answer, or not in HTTP."""


class SyncFailed(Exception):
    """`/sync` answered with an error. `absent`: the file does not exist (yet). `full`: its disk has no room."""

    def __init__(self, message: str, *, absent: bool) -> None:
        super().__init__(message)
        self.absent = absent
        self.full = "disk is full" in message


@dataclass(frozen=True, slots=True)
class Synced:
    """Where a file is: its newest transaction here, and the newest one in the bucket."""

    txid: int
    replicated_txid: int

    @property
    def confirmed(self) -> bool:
        """Whether all of it is in the bucket."""
        return self.replicated_txid >= self.txid > 0


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class ControlSocket:
    """A sidecar's control socket. Calls may overlap; each takes a connection of its own from those that are idle."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[_Connection] = []

    async def sync(self, path: str, *, wait: bool) -> Synced:
        """Copy what is committed; with `wait` upload it: then all that was committed before the call is in the bucket.

        `path` is the file's inside the container. Not bounded in time. Raises SyncFailed, SocketError.
        """
        body: dict[str, Any] = {"path": path, "timeout": -1}
        if wait:
            body["wait"] = True
        status, answer = await self._call("POST", "/sync", body)
        if status != 200:
            message = str(answer.get("error", f"HTTP {status}"))
            raise SyncFailed(message, absent="waiting for data" in message)
        return Synced(int(answer.get("txid", 0)), int(answer.get("replicated_txid", 0)))

    async def txid(self, path: str) -> int:
        """A file's newest transaction here, 0 for none. Raises SocketError."""
        status, answer = await self._call("GET", f"/txid?path={quote(path)}", None)
        return int(answer.get("txid", 0)) if status == 200 else 0

    async def info(self) -> dict[str, Any]:
        """Version, pid, start: answers even while the store does not. Raises SocketError."""
        status, answer = await self._call("GET", "/info", None)
        if status != 200:
            raise SocketError(f"/info answered {status}")
        return answer

    def close(self) -> None:
        """Drop idle connections."""
        while self._idle:
            self._idle.pop().writer.close()

    async def _call(self, method: str, target: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        content = b"" if body is None else json.dumps(body).encode()
        request = (
            f"{method} {target} HTTP/1.1\r\nHost: sidecar\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        while self._idle:
            kept = self._idle.pop()
            try:
                return await self._exchange(kept, request)
            except SocketError:
                continue  # it may have been closed while idle: every call here may be repeated
        return await self._exchange(await self._connect(), request)

    async def _connect(self) -> _Connection:
        try:
            if len(os.fsencode(self._path)) < _LONGEST_PATH:
                return _Connection(*await asyncio.open_unix_connection(self._path))
            folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return _Connection(*await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{self._path.name}"))
            finally:
                os.close(folder)
        except OSError as e:
            raise SocketError(f"the sidecar's socket does not answer: {e.strerror}") from None

    async def _exchange(self, connection: _Connection, request: bytes) -> tuple[int, dict[str, Any]]:
        done = False
        try:
            connection.writer.write(request)
            await connection.writer.drain()
            head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
            length = int(fields["content-length"])
            if length > _BIGGEST_ANSWER:
                raise SocketError(f"an answer of {length} bytes")
            content = await connection.reader.readexactly(length)
            done = fields.get("connection") != "close"
            return int(head[0].split()[1]), _object(content)
        except (OSError, EOFError, asyncio.LimitOverrunError, KeyError, ValueError, IndexError) as e:
            done = False
            raise SocketError(f"the sidecar did not answer: {type(e).__name__}") from None
        finally:
            if done:
                self._idle.append(connection)
            else:
                connection.writer.close()


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = content.decode(errors="replace").strip()
    return value if isinstance(value, dict) else {"error": str(value)}
