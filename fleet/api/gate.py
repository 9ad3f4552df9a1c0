"""What every request passes: the bearer token, and the bound on bodies. Pure ASGI: it costs nothing per byte."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from pydantic import SecretStr
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.errors import FleetError, Forbidden, TooLarge, Unauthorized

BODY_BYTES = 1 << 20
DISCARD_BYTES = 16 << 20
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
APPS = "/v1/apps/"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def problem_response(error: FleetError, headers: dict[str, str] | None = None) -> Response:
    """An error as its problem document."""
    body = error.problem().model_dump_json(exclude_none=True)
    more = dict(headers or {})
    if error.retryable:
        more["Retry-After"] = "1"
    return Response(body, error.status, more, media_type="application/problem+json")


class Gate:
    """ASGI middleware. Sets `scope["state"]["full"]`: whether the token may change things and see secrets."""

    def __init__(self, app: ASGIApp, tokens: Sequence[SecretStr], readonly: Sequence[SecretStr]) -> None:
        self._app = app
        self._full = [_digest(t.get_secret_value()) for t in tokens]
        self._read = [_digest(t.get_secret_value()) for t in readonly]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            full = self._allowed(scope)
            scope.setdefault("state", {})["full"] = full
            if scope["path"].startswith(APPS) and scope["method"] == "PUT":
                replay = receive
            else:
                replay = await _whole(scope, receive)
        except FleetError as e:
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(e, Unauthorized) else {"Connection": "close"}
            if isinstance(e, TooLarge):
                await _discard(receive)
            await problem_response(e, headers)(scope, receive, send)
            return
        await self._app(scope, replay, send)

    def _allowed(self, scope: Scope) -> bool:
        given = next((v for k, v in scope["headers"] if k == b"authorization"), b"").decode("latin-1")
        scheme, _, token = given.partition(" ")
        digest = _digest(token.strip())
        # Every token is compared whatever the first said: the time tells nothing.
        full = sum([hmac.compare_digest(digest, known) for known in self._full]) > 0
        read = sum([hmac.compare_digest(digest, known) for known in self._read]) > 0
        if scheme.lower() != "bearer" or not (full or read):
            raise Unauthorized("give the fleet's token as `Authorization: Bearer …` (FLEET_TOKEN)")
        if not full and scope["method"] not in _SAFE:
            raise Forbidden("this token may only read; use one of FLEET_TOKEN")
        return full


async def _whole(scope: Scope, receive: Receive) -> Receive:
    """Read the body, at most 1 MiB of it, and hand it on in one piece. Raises TooLarge."""
    length = next((v for k, v in scope["headers"] if k == b"content-length"), b"")
    if length.isdigit() and int(length) > BODY_BYTES:
        raise TooLarge(f"a body holds at most {BODY_BYTES} bytes")
    chunks: list[bytes] = []
    size = 0
    if length not in (b"", b"0") or any(k == b"transfer-encoding" for k, _ in scope["headers"]):
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > BODY_BYTES:
                raise TooLarge(f"a body holds at most {BODY_BYTES} bytes")
            chunks.append(chunk)
            more = message.get("more_body", False)
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": b"".join(chunks), "more_body": False}

    return replay


async def _discard(receive: Receive) -> None:
    """Read on for a while: a client that is still sending would see its connection reset instead of the answer."""
    left = DISCARD_BYTES
    while left > 0:
        message = await receive()
        left -= max(1, len(message.get("body", b"")))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
