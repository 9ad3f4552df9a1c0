"""Every error as an RFC 9457 document: the core's, the framework's, and the unforeseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fleet.api.gate import problem_response
from fleet.errors import FleetError, Invalid, NotFound
from node.api import Problem

T = TypeVar("T", bound=BaseModel)

_NAMES = ("tenant", "node")  # parts of a path

log = structlog.get_logger("fleet.api")

PROBLEM: dict[str, Any] = {
    "description": "A problem document (RFC 9457).",
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    401: PROBLEM,
    403: PROBLEM,
    404: PROBLEM,
    409: PROBLEM,
    412: PROBLEM,
    413: PROBLEM,
    422: PROBLEM,
    503: PROBLEM,
    "default": PROBLEM,
}


class NotAllowed(FleetError):
    """This path does not take this method."""

    type, title, status, exit_code = "method_not_allowed", "This path does not take this method", 405, 2


class Refused(FleetError):
    """What the framework refuses with another status."""

    type, title, status, exit_code = "bad_request", "Bad request", 400, 2


def parse(kind: type[T], body: bytes, tenant: str | None) -> T:
    """A body strictly as its type. Raises Invalid that names the field."""
    try:
        return kind.model_validate_json(body or b"null", strict=True)
    except ValidationError as e:
        raise _invalid(e.errors(include_url=False), tenant) from None


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(FleetError)
    async def fleet(_: Request, e: FleetError) -> Response:
        return problem_response(e)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> Response:
        return problem_response(_invalid(e.errors(), request.path_params.get("tenant")))

    @app.exception_handler(HTTPException)
    async def http(request: Request, e: HTTPException) -> Response:
        if e.status_code == 404:
            return problem_response(NotFound(f"there is nothing at {request.url.path}"))
        if e.status_code == 405:
            error = NotAllowed(f"{request.url.path} does not take {request.method}")
            return problem_response(error, dict(e.headers or {}))
        return problem_response(Refused(str(e.detail)))

    @app.exception_handler(Exception)
    async def other(request: Request, e: Exception) -> Response:
        log.error("a request failed", path=request.url.path, method=request.method, error=repr(e))
        return problem_response(FleetError("the controller failed on this request; its log says more"))


def _invalid(errors: Sequence[Any], tenant: str | None) -> Invalid:
    first = errors[0]
    # Ends in the name of the type that pydantic tried; a path is what the user wrote.
    path = [str(p) for p in first["loc"] if p not in ("body", "query", "path", "header", "[key]")]
    field = ".".join(path) or None
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "string_pattern_mismatch" and field in _NAMES:
        return Invalid(f"{first['input']!r} is not a {field}'s name: 1 to 63 of a-z, 0-9 and '-' inside", field=field)
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Invalid(f"{field}: {said}{more}" if field else f"{said}{more}", tenant=tenant, field=field)
