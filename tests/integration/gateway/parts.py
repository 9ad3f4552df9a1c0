"""What the gateway's tests run: HAProxy as a plain process, and upstream servers that say who they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from node.agent.gateway.admin import parse_in_flight
from node.agent.gateway.haproxy import HaproxyGateway
from tests.testbed.process import free_ports

UID = 199_999


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    return free_ports(1)[0]


class HostProcess:
    """GatewayProcess: the machine's own haproxy, started by hand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder.parent / f"{folder.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.alive():
            return
        command = ["haproxy", "-W", "-db", "-S", f"{self._folder}/run/master.sock,mode,600"]
        command += ["-f", f"{self._folder}/haproxy.cfg"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=UID, group=UID, extra_groups=(), cwd="/", start_new_session=True
            )

    def stop(self) -> None:
        self.kill(signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End all of its processes; they are a group of their own."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait(20)

    @property
    def pid(self) -> int:
        """Of its group."""
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def until_open(gateway: HaproxyGateway, tenant: str, count: int) -> None:
    """Wait until so many requests of a tenant are open, those that are held among them."""
    admin = gateway._admin
    for _ in range(6000):
        answers = [admin._call(f"@!{pid} show table open key {tenant}") for pid in admin.processes().all]
        if sum(parse_in_flight(answer, tenant) for answer in answers) == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{tenant}: not {count} requests are open")


class Upstream:
    """A tenant's server in a thread: tells its name, what it was sent, streams, echoes."""

    def __init__(self, name: str, port: int | None = None, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        self.port = port or free_port()
        self.gate = threading.Event()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def start(self) -> Upstream:
        config = uvicorn.Config(
            self._app(),
            host=self.host,
            port=self.port,
            log_level="error",
            timeout_graceful_shutdown=1,
            ws="websockets-sansio",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        for _ in range(6000):
            if self._server.started:
                return self
            threading.Event().wait(0.01)
        raise AssertionError(f"{self.name} does not start")

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = None

    def _app(self) -> Starlette:
        async def tell(request: Request) -> Response:
            return JSONResponse(
                {
                    "name": self.name,
                    "path": request.scope["raw_path"].decode(),
                    "query": request.url.query,
                    "headers": [[k.decode(), v.decode()] for k, v in request.headers.raw],
                    "client_port": request.client.port if request.client else None,
                }
            )

        async def events(request: Request) -> Response:
            async def body() -> AsyncIterator[bytes]:
                yield b"data: first\n\n"
                await asyncio.to_thread(self.gate.wait)
                yield b"data: second\n\n"

            return StreamingResponse(body(), media_type="text/event-stream")

        async def count(request: Request) -> Response:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
            return JSONResponse({"size": size})

        async def wait(request: Request) -> Response:
            await asyncio.to_thread(self.gate.wait)
            return JSONResponse({"name": self.name})

        async def echo(socket: WebSocket) -> None:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(f"{self.name}: {text}")

        handlers: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
            ("/events", events), ("/count", count), ("/wait", wait), ("/{rest:path}", tell),
        ]  # fmt: skip
        methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
        return Starlette(
            routes=[WebSocketRoute("/echo", echo), *(Route(path, f, methods=methods) for path, f in handlers)]
        )


@contextlib.contextmanager
def upstream(name: str, host: str = "127.0.0.1") -> Iterator[Upstream]:
    """An upstream that is stopped at the end, with whatever it still streams let go."""
    server = Upstream(name, host=host).start()
    try:
        yield server
    finally:
        server.gate.set()
        server.stop()
