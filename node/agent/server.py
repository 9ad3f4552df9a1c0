"""The agent's HTTP API as `node.api` describes it: for the controller, with a bearer token."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import SecretStr

from node.api import (
    Assignment,
    GarbageReport,
    GarbageRequest,
    NodeReport,
    Points,
    Problem,
    PurgeReport,
    PurgeRequest,
    TenantReport,
)
from node.bucket import keys
from node.bucket.errors import BucketError

BODY_LIMIT_BYTES = 1 << 20
LONGEST_WAIT_S = 60.0


class Service(Protocol):
    """What the API offers, by the agent's app. Raises `Fault` for what a caller should be told."""

    async def assign(self, want: Assignment) -> TenantReport:
        """Take up what is wanted of a tenant."""

    async def read(self, after: int, wait_s: float) -> NodeReport:
        """The node's report once it is past a version."""

    async def points(self, tenant: str) -> Points:
        """The moments a tenant can be restored to."""

    def logs(
        self, tenant: str, container: str, *, tail: int | None, since: float | None, follow: bool
    ) -> Iterator[bytes]:
        """Log lines of one of the tenant's containers."""

    async def purge(self, tenant: str, epoch: int) -> PurgeReport:
        """Delete the data of a tombstoned tenant."""

    async def collect(self, tenant: str, *, dry_run: bool) -> GarbageReport:
        """Delete what of a tenant is garbage here, or say what would go."""

    def metrics(self) -> bytes:
        """Prometheus text."""

    def ready(self) -> str:
        """Empty when the node works, else why not."""


class Fault(Exception):
    """An answer other than success: status, one token, a sentence."""

    def __init__(self, status: int, reason: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.retryable = retryable


def _answer(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.model_dump(), problem.status, media_type="application/problem+json")


def _problem(status: int, reason: str, detail: str, **more: Any) -> JSONResponse:
    return _answer(Problem(type=f"urn:fleet:{reason}", title=reason, status=status, detail=detail, **more))


def build(service: Service, tokens: tuple[SecretStr, ...], readonly: tuple[SecretStr, ...] = ()) -> FastAPI:
    """The ASGI app. `tokens` are all accepted, `readonly` for what only looks; without one every call is refused."""
    full = [t.get_secret_value().encode() for t in tokens]
    looking = [t.get_secret_value().encode() for t in readonly]

    def authorize(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        accepted = full + looking if request.method == "GET" else full
        # Every token is compared, so that the time says nothing about which one came close.
        right = [hmac.compare_digest(given.encode(), token) for token in accepted]
        if scheme.lower() != "bearer" or not any(right):
            raise HTTPException(401, "give the fleet's token as Authorization: Bearer")

    app = FastAPI(title="fleet agent", docs_url=None, redoc_url=None, openapi_url=None)
    _errors(app)
    _limit_bodies(app)
    _open(app, service)
    guarded = APIRouter(dependencies=[Depends(authorize)])
    _guarded(guarded, service)
    app.include_router(guarded)
    return app


def _open(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    def readyz() -> PlainTextResponse:
        why = service.ready()
        return PlainTextResponse(f"{why or 'ok'}\n", 503 if why else 200)


def _guarded(app: APIRouter, service: Service) -> None:
    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        text = await asyncio.to_thread(service.metrics)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.put("/v1/tenants/{tenant}", status_code=202)
    async def assign(tenant: str, want: Assignment) -> TenantReport:
        if want.tenant != tenant or not keys.is_name(tenant):
            raise Fault(400, "bad_tenant", f"{tenant!r} is not the name in the body, or not a tenant's name")
        return await service.assign(want)

    @app.get("/v1/state")
    async def state(
        version: Annotated[int, Query(ge=-1)] = -1, wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = 0
    ) -> NodeReport:
        return await service.read(version, wait)

    @app.get("/v1/tenants/{tenant}/points")
    async def points(tenant: str) -> Points:
        return await service.points(tenant)

    @app.get("/v1/tenants/{tenant}/logs")
    async def logs(
        tenant: str,
        container: Literal["worker", "sidecar"] = "worker",
        follow: bool = False,
        since: float | None = None,
        tail: Annotated[int | None, Query(ge=0)] = None,
    ) -> StreamingResponse:
        lines = await asyncio.to_thread(lambda: service.logs(tenant, container, tail=tail, since=since, follow=follow))
        return StreamingResponse(lines, media_type="text/plain")

    @app.post("/v1/purge/{tenant}")
    async def purge(tenant: str, request: PurgeRequest) -> PurgeReport:
        return await service.purge(tenant, request.epoch)

    @app.post("/v1/gc/{tenant}")
    async def collect(tenant: str, request: GarbageRequest) -> GarbageReport:
        return await service.collect(tenant, dry_run=request.dry_run)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Fault)
    async def fault(_: Request, e: Fault) -> JSONResponse:
        return _problem(e.status, e.reason, str(e), retryable=e.retryable)

    @app.exception_handler(BucketError)
    async def bucket(_: Request, e: BucketError) -> JSONResponse:
        return _problem(503, f"bucket_{e.code}", str(e), retryable=e.retryable)

    @app.exception_handler(HTTPException)
    async def http(_: Request, e: HTTPException) -> JSONResponse:
        return _problem(e.status_code, "unauthorized" if e.status_code == 401 else "refused", str(e.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        first = e.errors()[0]
        return _problem(400, "bad_input", first["msg"], field=".".join(map(str, first["loc"])))


def _limit_bodies(app: FastAPI) -> None:
    @app.middleware("http")
    async def limit(request: Request, call: Callable[[Request], Awaitable[Any]]) -> Any:
        length = request.headers.get("content-length")
        chunked = "transfer-encoding" in request.headers
        if chunked or (length is not None and (not length.isdigit() or int(length) > BODY_LIMIT_BYTES)):
            return _problem(413, "too_large", f"a body holds at most {BODY_LIMIT_BYTES} bytes, with its length given")
        return await call(request)
