"""What a tenant's node tells of it, through the controller: points, logs; and its own access token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

import httpx
import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from fleet.api.problems import RESPONSES
from fleet.api.tenants import P, Tenant
from fleet.api.view import TokenView
from fleet.errors import Forbidden
from node.api import Points

router = APIRouter(responses=RESPONSES, tags=["tenants"])
log = structlog.get_logger("fleet.api")


@router.get("/v1/tenants/{tenant}/points", operation_id="listPoints")
async def points(tenant: Tenant, p: P) -> Points:
    """The moments that a tenant can be restored to, oldest first."""
    p.desk.find(tenant)
    agent = p.agent_of(p.world.evidence(tenant).node, tenant)
    return await agent.points(tenant)


@router.get("/v1/tenants/{tenant}/logs", operation_id="tenantLogs", response_class=StreamingResponse)
async def logs(
    tenant: Tenant,
    p: P,
    container: Literal["worker", "sidecar"] = "worker",
    follow: bool = False,
    since: Annotated[float | None, Query(ge=0, description="Unix time.")] = None,
    tail: Annotated[int | None, Query(ge=0, le=100_000)] = None,
) -> StreamingResponse:
    """Lines of a tenant's log, each with its time."""
    p.desk.find(tenant)
    params = {"container": container, "follow": "true" if follow else "false"}
    if since is not None:
        params["since"] = f"{since:f}"
    if tail is not None:
        params["tail"] = str(tail)
    agent = p.agent_of(p.world.evidence(tenant).node, tenant)
    answer = await agent.logs(tenant, params)
    return StreamingResponse(_passed_on(answer, tenant), media_type="text/plain; charset=utf-8")


async def _passed_on(answer: httpx.Response, tenant: str) -> AsyncIterator[bytes]:
    """What the agent sends, until it ends or breaks off; the stream to the client can only end too."""
    try:
        async with aclosing(answer):
            async for chunk in answer.aiter_raw():
                yield chunk
    except httpx.HTTPError as e:
        log.warning("a log stream broke off", tenant=tenant, error=str(e))


@router.get("/v1/tenants/{tenant}/token", operation_id="tenantToken")
async def token(tenant: Tenant, p: P, request: Request) -> TokenView:
    """The tenant's own bearer token for its gateway. Needs a token that may change things."""
    if not request.scope["state"]["full"]:
        raise Forbidden("a token that may only read is not shown others; use one of FLEET_TOKEN", tenant=tenant)
    spec = p.desk.find(tenant)
    open_to_all = spec.spec.access != "token"
    return TokenView(tenant=tenant, token=None if open_to_all else await p.vault.access_token(tenant))
