"""uvicorn, made quiet: no polling while idle, exit 0 on SIGTERM, and an event that tells when it starts to stop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import socket
import sys
import types
from collections.abc import Generator
from typing import Any

from node.worker.http import Asgi

if "uvicorn" not in sys.modules:
    # What uvicorn imports and this server never calls: a command line (click, multiprocessing, a reloader), the setup
    # of logging, the date's header, adapters for other kinds of applications, types. Over 2 MB, and 35 ms of a start.
    _UNUSED: dict[str, dict[str, object]] = {
        "uvicorn.main": {"Server": None, "main": None, "run": None},
        "uvicorn._types": {"__getattr__": lambda _: Any},
        "uvicorn.middleware.asgi2": {"ASGI2Middleware": None},
        "uvicorn.middleware.message_logger": {"MessageLoggerMiddleware": None},
        "uvicorn.middleware.proxy_headers": {"ProxyHeadersMiddleware": None},
        "uvicorn.middleware.wsgi": {"WSGIMiddleware": None},
        "logging.config": {},
        "configparser": {"RawConfigParser": None},
        "email.utils": {"formatdate": lambda *_, **__: ""},
    }
    stand_ins = [name for name in _UNUSED if name not in sys.modules]
    for name in stand_ins:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(_UNUSED[name])
    importlib.import_module("uvicorn.protocols.http.httptools_impl")
    for name in stand_ins:
        del sys.modules[name]

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

DRAIN_S = 20


class QuietServer(Server):
    """uvicorn's server without its ten wake-ups a second, which a machine with a thousand tenants would feel.

    tenant: whether there is an application of the tenant's own, which may have a lifespan and websockets.
    """

    def __init__(self, app: Asgi, stopping: asyncio.Event, *, tenant: bool) -> None:
        super().__init__(
            Config(
                app,
                http=HttpToolsProtocol,
                ws="auto" if tenant else "none",  # else two libraries would be looked for
                log_config=None,
                access_log=False,
                lifespan="auto" if tenant else "off",
                interface="asgi3",
                date_header=False,  # it would need the wake-ups
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=DRAIN_S,
            )
        )
        self._stopping = stopping

    async def main_loop(self) -> None:
        """Waits until it is told to stop."""
        await self.on_tick(0)
        await self._stopping.wait()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM and SIGINT ask for a stop; the process then ends by itself, with 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Connections wait in its backlog until the server runs. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    listener.set_inheritable(False)
    return listener
