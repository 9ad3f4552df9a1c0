"""A proxy in front of a real store that refuses, hangs, fails, loses replies or delays, and counts what passes.

Bytes are forwarded as they come, so that signatures stay valid. It runs in a thread of its own.

    with faulty_proxy(minio.port) as proxy:
        proxy.fail(Mode.LOST_REPLY, method="PUT", key="owners/", times=1)
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, TypeVar

from tests.testbed.http_bytes import Head, Request, pass_body, read_head, request_of

T = TypeVar("T")
_WAIT_S = 30.0
_ANSWER_503 = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Mode(Enum):
    """What happens to a request. REFUSE and, for new connections, BLACKHOLE are of the whole proxy."""

    PASS = auto()
    REFUSE = auto()
    BLACKHOLE = auto()
    UNAVAILABLE = auto()
    LOST_REPLY = auto()
    DELAY = auto()


@dataclass
class Rule:
    """Which requests fail how; empty strings match everything. `times` None means until it is cleared; `share` is how
    many of them, 0..1, chosen at random."""

    mode: Mode
    method: str = ""
    key: str = ""
    times: int | None = None
    delay_s: float = 0.0
    share: float = 1.0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Whether this request is one of these."""
        left = self.times is None or self.hits < self.times
        found = left and self.method in ("", request.method) and self.key in request.key
        return found and (self.share >= 1 or random.random() < self.share)


@dataclass(frozen=True)
class Seen:
    """A request that came by: when (monotonic seconds), what, and the status of its answer (None: none yet)."""

    at: float
    method: str
    key: str
    status: int | None
    bytes_in: int
    bytes_out: int


@dataclass
class FaultyProxy:
    """A running proxy. Methods may be called from any thread; a change holds for every request that comes after it."""

    upstream_port: int
    port: int = 0
    host: str = "127.0.0.1"
    seen: list[Seen] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _peers: set[asyncio.StreamWriter] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @property
    def endpoint(self) -> str:
        """What clients get as the store's address."""
        return f"http://{self.host}:{self.port}"

    def fail(
        self,
        mode: Mode,
        *,
        method: str = "",
        key: str = "",
        times: int | None = None,
        delay_s: float = 0,
        share: float = 1,
    ) -> Rule:
        """From now on these requests fail like this: `method` GET, PUT, HEAD, LIST, DELETE; `key` a part of the key."""
        rule = Rule(mode, method, key, times, delay_s, share)
        if mode is Mode.REFUSE:
            assert not method
            assert not key
            self._run(self._close())
        elif mode is Mode.BLACKHOLE and not method and not key:
            self._run(self._cut())
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Everything passes again. What hung gets its connection closed."""
        self._rules.clear()
        self._run(self._cut())
        self._run(self._listen())

    def count(self, method: str = "", key: str = "", *, since: float = 0.0) -> int:
        """How many requests came by since a moment, by method and the beginning of the key."""
        return sum(
            method in ("", one.method) and one.key.startswith(key) and one.at >= since for one in tuple(self.seen)
        )

    def start(self) -> None:
        """Listen, in a thread."""
        threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True).start()
        self._run(self._listen())

    def stop(self) -> None:
        """Close everything."""
        self._run(self._close())
        self._run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_WAIT_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        for peer in tuple(self._peers):
            peer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peers.add(writer)
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while (head := await read_head(reader)) is not None:
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self.upstream_port)
                if not await self._exchange(head, reader, writer, upstream):
                    break
        except (OSError, EOFError):
            pass  # either side went away: so does the other
        finally:
            self._peers.discard(writer)
            for one in (writer, upstream[1] if upstream else None):
                if one is not None:
                    one.transport.abort()

    async def _exchange(
        self,
        head: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bool:
        """One request and its answer; says whether the connection goes on."""
        request = request_of(head)
        rule = next((rule for rule in self._rules if rule.takes(request)), Rule(Mode.PASS))
        rule.hits += 1
        place, seen = len(self.seen), Seen(time.monotonic(), request.method, request.key, None, 0, 0)
        self.seen.append(seen)
        if rule.mode is Mode.BLACKHOLE:
            await reader.read(-1)  # until the client, or `heal`, closes it
            return False
        if rule.mode is Mode.UNAVAILABLE:
            self.seen[place] = replace(seen, status=503)
            writer.write(_ANSWER_503)
            await writer.drain()
            return False
        if rule.mode is Mode.DELAY:
            await asyncio.sleep(rule.delay_s)
        sent = await _forward(head, reader, writer, upstream[1])
        answer = await _answer(upstream[0])
        # Written down before the client has its answer: whoever has it finds it counted.
        self.seen[place] = seen = replace(seen, status=answer.status, bytes_in=sent)
        lost = rule.mode is Mode.LOST_REPLY
        got = await _reply(answer, request, upstream[0], None if lost else writer)
        self.seen[place] = replace(seen, bytes_out=got)
        return not lost and not head.closes and not answer.closes


async def _forward(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: asyncio.StreamWriter
) -> int:
    upstream.write(head.raw)
    if head.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # and the store's own is swallowed
        await writer.drain()
    return await pass_body(head, reader, upstream)


async def _answer(upstream: asyncio.StreamReader) -> Head:
    while True:
        head = await read_head(upstream)
        if head is None:
            raise EOFError
        if head.status >= 200:
            return head


async def _reply(
    answer: Head, request: Request, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter | None
) -> int:
    if writer is not None:
        writer.write(answer.raw)
    if request.method == "HEAD" or answer.status in (204, 304):
        if writer is not None:
            await writer.drain()
        return 0
    return await pass_body(answer, upstream, writer, until_end=answer.length is None and not answer.chunked)


async def _cancel_others() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*others, return_exceptions=True)


@contextmanager
def faulty_proxy(upstream_port: int, host: str = "127.0.0.1") -> Iterator[FaultyProxy]:
    """A proxy, listening on an address of `host`, in front of what listens on this port of loopback."""
    proxy = FaultyProxy(upstream_port, host=host)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
