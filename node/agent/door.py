"""The worker's only door to its node: a unix socket in the tenant's `run` folder.

    POST /durable   200 once everything committed so far, in every file, is in the bucket and this epoch still owns the
                    tenant; 503 says that this is unknown: ask again
    POST /wake-at   {"at": unix seconds | null}: when the tenant wants to run next; recorded
    GET  /identity  who the tenant is

The socket itself says who is asking: one per tenant, owned by its uid, in a folder that only root can change.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

BODY_LIMIT_BYTES = 64 << 10
# What one tenant can make the agent keep: whoever is behind the socket is not to be trusted.
CONNECTIONS = 512
REQUEST_LIMIT_BYTES = 512 << 10


class NotConfirmed(Exception):
    """It is not known whether everything is in the bucket. `reason` is a token."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DoorHandlers:
    """What the door does. `durable` and `wake_at` (unix seconds or None) raise NotConfirmed."""

    durable: Callable[[], Awaitable[None]]
    wake_at: Callable[[float | None], Awaitable[None]]
    identity: Callable[[], dict[str, Any]]


class _Bounded(HttpToolsProtocol):
    """A connection that is cut when there are too many of them, or when its request does not come to an end."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._request_bytes = 0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as the base does
        self._refused = len(self.connections) >= CONNECTIONS
        if self._refused:
            transport.abort()
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._request_bytes += len(data)
        if self._request_bytes > REQUEST_LIMIT_BYTES:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_message_complete(self) -> None:
        self._request_bytes = 0
        super().on_message_complete()


class Door:
    """One tenant's socket, served on the running event loop."""

    def __init__(self, folder: Path, uid: int, handlers: DoorHandlers) -> None:
        self._path = folder / "agent.sock"
        self._uid = uid
        self._handlers = handlers
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a socket file that an earlier agent left is replaced."""
        config = Config(
            self._app,
            interface="asgi3",
            lifespan="off",
            ws="none",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            server_header=False,
        )
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Bounded(config, state, {}),
            sock=_bind(self._path, self._uid),
        )

    async def close(self) -> None:
        """Stop listening; requests under way are cut, which their caller takes as unknown."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, body = await self._answer(scope["method"], scope["path"], receive)
        data = json.dumps(body).encode()
        kind = b"application/json" if status < 400 else b"application/problem+json"
        headers = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    async def _answer(self, method: str, path: str, receive: Any) -> tuple[int, dict[str, Any]]:
        try:
            return await self._handle(method, path, receive)
        except NotConfirmed as e:
            return 503, _problem(503, e.reason, str(e))

    async def _handle(self, method: str, path: str, receive: Any) -> tuple[int, dict[str, Any]]:
        match method, path:
            case "POST", "/durable":
                await self._handlers.durable()
                return 200, {"durable": True}
            case "POST", "/wake-at":
                return await self._wake_at(receive)
            case "GET", "/identity":
                return 200, self._handlers.identity()
            case _, ("/durable" | "/wake-at" | "/identity"):
                return 405, _problem(405, "method_not_allowed", f"{path} does not take {method}")
            case _:
                return 404, _problem(404, "not_found", "the node offers /durable, /wake-at and /identity")

    async def _wake_at(self, receive: Any) -> tuple[int, dict[str, Any]]:
        try:
            at = json.loads(await _body(receive))["at"]
            if at is not None and (isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e11):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            return 400, _problem(400, "bad_input", 'at: send {"at": unix seconds or null}')
        await self._handlers.wake_at(at)
        return 200, {"at": at}


def _problem(status: int, reason: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:fleet:{reason}",
        "title": reason,
        "status": status,
        "detail": detail,
        "retryable": status == 503,
    }


async def _body(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message: dict[str, Any] = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT_BYTES:
            raise ValueError
        if not message.get("more_body"):
            return body


def _bind(path: Path, uid: int) -> socket.socket:
    """A listening socket that only this uid can open. The folder is root's, so nobody can swap the file meanwhile."""
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # By the folder's descriptor, as a socket's address holds 108 bytes and a state folder may be deeper.
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
        path.chmod(0o600)
        os.chown(path, uid, uid)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock
