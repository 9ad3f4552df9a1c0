"""Just enough HTTP over ASGI for the worker's own API: a request, a response, and a body that is bounded.

The worker's API does without a web framework: one costs 7 MB of private memory in every tenant, and a tenant that wants
one brings its own routes (`site.py`).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import field
from typing import Any

from node.worker.problem import CONTENT_TYPE, Problem
from node.workflow.values.dataclass import dataclass

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_MAX_BYTES = 1024 * 1024
BODY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler gets, validated: path and query parameters by name, and the decoded JSON body (None without
    one)."""

    path: dict[str, str]
    query: dict[str, Any]
    body: Any = None
    last_event_id: str = ""  # of a client that comes back to a stream


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler gives back."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Stream:
    """A response that goes on: it ends when `chunks` do, or when the client has gone."""

    chunks: AsyncGenerator[bytes, None]
    content_type: str = "text/event-stream"
    status: int = 200


def json_response(status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A JSON response; the document must be made of JSON's own types."""
    return Response(status, json.dumps(document, separators=(",", ":")).encode(), headers=headers)


def problem_response(problem: Problem) -> Response:
    """The response that a problem asks for."""
    return Response(problem.status, problem.body(), CONTENT_TYPE, problem.headers)


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises Problem 413 over BODY_MAX_BYTES, 408 when it takes longer than BODY_TIMEOUT_S, 400 when it is cut.
    """
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > BODY_MAX_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(400, "body-cut", "the connection ended before the body did")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > BODY_MAX_BYTES:
                    raise _too_large()
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise Problem(408, "body-too-slow", f"the body took longer than {BODY_TIMEOUT_S:.0f} s") from None


def _too_large() -> Problem:
    return Problem(413, "body-too-large", f"the body is over {BODY_MAX_BYTES} bytes; send less at once")


def decode_json(scope: Scope, body: bytes) -> Any:
    """The JSON in a body. Raises Problem 415 for another media type, 400 for what is not JSON."""
    media_type = header(scope, b"content-type").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise Problem(415, "not-json", "send the body as Content-Type: application/json")
    try:
        document = _DECODER.decode(body.decode())
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(
                document, ensure_ascii=False
            ).encode()  # half a surrogate pair is no text, and no file can keep it
        return document
    except (ValueError, RecursionError) as error:
        raise Problem(400, "malformed-json", f"the body is not JSON: {error}", field="body") from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header (name in lower case), empty when it is not there."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


async def send_stream(send: Send, receive: Receive, stream: Stream, *, head_only: bool = False) -> None:
    """Sends a stream until it ends or the client goes."""
    headers = [(b"content-type", stream.content_type.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": stream.status, "headers": headers})
    if not head_only:
        sending = asyncio.ensure_future(_send_chunks(send, stream.chunks))
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await stream.chunks.aclose()
        if sending.cancelled():
            return
        sending.result()
    await send({"type": "http.response.body", "body": b""})


async def _send_chunks(send: Send, chunks: AsyncGenerator[bytes, None]) -> None:
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def body_bytes(scope: Scope) -> int:
    """How large a body may be that is announced like this."""
    declared = header(scope, b"content-length")
    if declared.isdigit():
        return min(int(declared), BODY_MAX_BYTES)
    return BODY_MAX_BYTES if header(scope, b"transfer-encoding") else 0


async def send_response(send: Send, response: Response, *, head_only: bool = False) -> None:
    """Sends a response, without its body for HEAD."""
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *((name.encode(), value.encode()) for name, value in response.headers),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else response.body})
