"""The worker as one ASGI application: its own API first, the tenant's routes beside it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from node.worker import ui
from node.worker.http import (
    Asgi,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    Stream,
    body_bytes,
    decode_json,
    header,
    problem_response,
    read_body,
    send_response,
    send_stream,
)
from node.worker.metrics import RequestCounts
from node.worker.operations import Operation, Routes
from node.worker.pressure import Pressure
from node.worker.problem import INTERNAL, Problem

log = logging.getLogger("node.worker")


class Site:
    """Routes every request; whatever goes wrong is answered with a problem document, and never half-done."""

    def __init__(self, routes: Routes, counts: RequestCounts, tenant: Asgi | None, pressure: Pressure) -> None:
        self._routes = routes
        self._pressure = pressure
        self._counts = counts
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan" and self._tenant is not None:
            await self._tenant(scope, receive, send)
        elif scope["type"] == "websocket":
            if self._tenant is None:
                await send({"type": "websocket.close", "code": 1000})
            else:
                await self._tenant(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        if self._tenant is not None and not ui.is_page(scope["path"]) and not self._routes.owns(scope["path"]):
            status = await _guard_tenant(self._tenant, scope, receive, send)
            self._counts.add("app", scope["method"], status, time.monotonic() - started)
            return
        with contextlib.ExitStack() as under_way:
            name, response = await self._answer(scope, receive, under_way)
            # Counted before it is sent: who has the answer can see it in the metrics.
            self._counts.add(name, scope["method"], response.status, time.monotonic() - started)
            head_only = scope["method"] == "HEAD"
            if isinstance(response, Stream):
                await send_stream(send, receive, response, head_only=head_only)
            else:
                await send_response(send, response, head_only=head_only)

    async def _answer(
        self, scope: Scope, receive: Receive, under_way: contextlib.ExitStack
    ) -> tuple[str, Response | Stream]:
        name = "none"
        try:
            if ui.is_page(scope["path"]) and (file := await ui.page(scope["method"], scope["path"])) is not None:
                return "ui", file
            operation, path = self._routes.find(scope["method"], scope["raw_path"].decode("latin-1"))
            name = operation.name
            query = operation.parse_query(scope["query_string"])
            under_way.enter_context(self._pressure.taken(operation.load, body_bytes(scope)))
            body = await _body(operation, scope, receive)
            request = Request(path, query, body, header(scope, b"last-event-id").decode("latin-1"))
            return name, await operation.handle(request)
        except Problem as problem:
            return name, problem_response(problem)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            return name, problem_response(INTERNAL)


async def _body(operation: Operation, scope: Scope, receive: Receive) -> Any:
    if operation.body is None:
        return None
    body = await read_body(scope, receive)
    if not body and not operation.body_required:
        return None
    return decode_json(scope, body)


async def _guard_tenant(tenant: Asgi, scope: Scope, receive: Receive, send: Send) -> int:
    """Lets the tenant answer and returns the status; what it raises becomes a problem document while it can."""
    status, whole, gone = 0, False, False

    async def heard() -> MutableMapping[str, Any]:
        nonlocal gone
        message = await receive()
        gone = message["type"] == "http.disconnect"
        return message

    async def watched(message: MutableMapping[str, Any]) -> None:
        nonlocal status, whole
        status = message.get("status", status)
        whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(message)

    try:
        await tenant(scope, heard, watched)
    except Exception as error:
        if gone:
            log.info("the client of %s %s went away before its answer", scope["method"], scope["path"])
            return 499  # as nginx counts it; nobody is there to read an answer
        if not isinstance(error, Problem):
            log.exception("the tenant's %s %s failed", scope["method"], scope["path"])
        if status and not whole:
            raise  # half an answer is out: only cutting the connection tells the client so
        if not status:
            problem = error if isinstance(error, Problem) else INTERNAL
            await send_response(send, problem_response(problem))
            return problem.status
    return status
