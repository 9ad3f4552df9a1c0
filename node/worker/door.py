"""The door to the node: one unix socket through which the worker asks "is everything so far in the bucket?".

Many callers wait at once and one answer serves them all: one call is in flight, everyone who comes meanwhile is served
by the next one, which starts after they asked. An error or a timeout says nothing about what reached the bucket, so
the call is repeated until the answer is definite.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path

from node.workflow.values.dataclass import dataclass

log = logging.getLogger("node.worker.door")

CALL_TIMEOUT_S = 35.0  # longer than the node itself waits: its answer says more than our impatience
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
_BODY_MAX_BYTES = 65536


class DoorError(Exception):
    """The node's socket did not give a definite answer: outcome unknown, safe to repeat."""


@dataclass(slots=True)
class DoorCounts:
    """What the door did since the start, for /metrics."""

    confirmed: int = 0
    unknown: int = 0
    confirmed_s: float = 0.0


class Door:
    """A persistent connection to the node's socket; belongs to one event loop, and dials when it is first used."""

    def __init__(self, path: Path, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.counts = DoorCounts()
        self._path = path
        self._timeout_s = timeout_s
        self._waiting: list[asyncio.Future[None]] = []
        self._rounds: asyncio.Task[None] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def durable(self) -> None:
        """Returns once everything committed before the call is in the bucket, however long that takes."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run_rounds(), name="door")
        await future

    async def wake_at(self, at: float | None) -> None:
        """Tells the node when the tenant wants to run next (unix seconds), None: when it is asked.

        Raises DoorError, OSError, EOFError or TimeoutError: not known whether it heard.
        """
        async with asyncio.timeout(self._timeout_s):
            streams = await asyncio.open_unix_connection(self._path)
            try:
                body = json.dumps({"at": at}).encode()
                status, answer = await _exchange(streams, "POST", "/wake-at", body)
            finally:
                streams[1].close()
        if status != 200:
            raise DoorError(f"POST /wake-at answered {status}: {answer[:200].decode(errors='replace')}")

    async def close(self) -> None:
        """Ends the connection; whoever still waits is cancelled, their outcome unknown."""
        if self._rounds is not None:
            self._rounds.cancel()
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._hang_up()

    async def _run_rounds(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while self._waiting:
            served, self._waiting = self._waiting, []
            try:
                await self._confirm()
            except (DoorError, OSError, TimeoutError, EOFError) as error:
                self.counts.unknown += 1
                self._hang_up()
                self._waiting = served + self._waiting
                log.warning("not confirmed yet, trying again in %.2f s: %s", backoff_s, error or type(error).__name__)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                continue
            except asyncio.CancelledError:
                for future in served:
                    future.cancel()
                raise
            backoff_s = BACKOFF_FIRST_S
            for future in served:
                if not future.done():
                    future.set_result(None)

    async def _confirm(self) -> None:
        started = time.monotonic()
        async with asyncio.timeout(self._timeout_s):
            status, body = await self._ask()
        if status != 200:
            raise DoorError(f"POST /durable at {self._path} answered {status}: {body[:200].decode(errors='replace')}")
        self.counts.confirmed += 1
        self.counts.confirmed_s += time.monotonic() - started

    async def _ask(self) -> tuple[int, bytes]:
        if self._streams is not None:
            try:
                return await _exchange(self._streams, "POST", "/durable")
            except (OSError, EOFError):
                self._hang_up()  # a connection that the node closed while it was idle says nothing: dial again at once
        self._streams = await asyncio.open_unix_connection(self._path)
        return await _exchange(self._streams, "POST", "/durable")

    def _hang_up(self) -> None:
        # A call that was given up may still be answered: its answer must not be taken for the next one's.
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _exchange(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str, path: str, body: bytes = b""
) -> tuple[int, bytes]:
    """One request, and the answer's status and body.

    Raises DoorError for what is not HTTP with a length, EOFError or OSError when the connection is cut.
    """
    reader, writer = streams
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        status, length = int(head[0].split(" ", 2)[1]), int(headers.get("content-length", "-1"))
    except (asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise DoorError(f"{method} {path}: the node's answer is not HTTP ({error})") from error
    if not 0 <= length <= _BODY_MAX_BYTES:
        raise DoorError(f"{method} {path}: the node's answer has no usable Content-Length ({length})")
    return status, await reader.readexactly(length)
