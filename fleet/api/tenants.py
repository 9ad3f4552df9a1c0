"""`/v1/tenants`: what should be of a tenant, and what is."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from fleet.api import present
from fleet.api.parts import Parts, parts
from fleet.api.problems import RESPONSES, parse
from fleet.api.view import ChangeList, PutTenant, RestoreTenant, TenantList, TenantView
from fleet.core import change
from fleet.desk import Changed, Expect, gone
from fleet.errors import Invalid
from node.bucket.records import Restore
from node.bucket.spec import parse_duration

NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DURATION = r"^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m)|0)$"
LABEL = r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?=[^\x00]*$"
# A client that waits longer asks again.
LONGEST_WAIT_S = 120.0

Tenant = Annotated[str, Path(pattern=NAME, description="A DNS label.")]
Wait = Annotated[str, Query(pattern=DURATION, description="Wait at most so long until it is carried out, like 30s.")]
IfMatch = Annotated[str | None, Header(description="The ETag that the tenant must still have.")]
P = Annotated[Parts, Depends(parts)]

router = APIRouter(responses=RESPONSES, tags=["tenants"])


def body_of(model: type[Any]) -> dict[str, Any]:
    """The OpenAPI of a body that is parsed strictly by hand."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def expect(if_match: IfMatch = None, if_none_match: Annotated[str | None, Header()] = None) -> Expect:
    """The conditions of a request's headers. A weak or unknown tag matches nothing."""
    if if_none_match is not None and if_none_match.strip() == "*":
        return Expect(exists=False)
    if if_match is None:
        return Expect()
    if if_match.strip() == "*":
        return Expect(exists=True)
    tags = [tag.strip().strip('"') for tag in if_match.split(",")]
    return Expect(
        generations=frozenset(int(tag) for tag in tags if tag.isascii() and tag.isdecimal() and len(tag) < 19)
    )


Expected = Annotated[Expect, Depends(expect)]


@router.get("/v1/tenants", operation_id="listTenants")
async def list_tenants(
    p: P,
    label: Annotated[
        list[Annotated[str, Query(pattern=LABEL)]] | None, Query(description="KEY=VALUE; all must match.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="From the page before.")] = None,
) -> TenantList:
    """Tenants by name, those with all of these labels."""
    p.desk.all_known()
    wanted = [item.partition("=")[::2] for item in label or ()]
    after = _after(cursor)
    found: list[TenantView] = []
    more = None
    for name in sorted(p.world.specs):
        spec = p.world.specs[name]
        if name <= after or gone(spec) or any(spec.spec.labels.get(k) != v for k, v in wanted):
            continue
        if len(found) == limit:
            more = _cursor(found[-1].tenant)
            break
        found.append(present.tenant_view(p, name))
    return TenantList(tenants=tuple(found), cursor=more)


@router.get("/v1/tenants/{tenant}", operation_id="getTenant")
async def get_tenant(tenant: Tenant, p: P, response: Response) -> TenantView:
    """A tenant. The ETag is its generation."""
    spec = p.desk.find(tenant)
    _headers(response, present.etag(spec))
    return present.tenant_view(p, tenant)


@router.put(
    "/v1/tenants/{tenant}",
    operation_id="putTenant",
    status_code=202,
    response_model=TenantView | ChangeList,
    responses={200: {"description": "Carried out, or nothing to change.", "model": TenantView | ChangeList}},
    openapi_extra=body_of(PutTenant),
)
async def put_tenant(
    tenant: Tenant,
    p: P,
    request: Request,
    response: Response,
    expected: Expected,
    dry_run: Annotated[bool, Query(description="Only say what would change.")] = False,
    wait: Wait = "0",
) -> TenantView | ChangeList:
    """Bring a tenant up with this spec, or change it. The same again changes nothing."""
    body = parse(PutTenant, await request.body(), tenant)
    if dry_run:
        planned = await p.desk.preview(tenant, body.spec, body.secrets, p.access)
        response.status_code = 200
        old = planned.old.spec if planned.old else None
        return ChangeList(
            tenant=tenant,
            creates=planned.old is None,
            restarts=planned.made and change.restarts(old, planned.spec.spec),
            changes=present.changes(planned),
        )
    changed = await p.desk.put(tenant, body.spec, body.secrets, p.access, expected)
    return await _answer(p, changed, response, wait)


@router.delete(
    "/v1/tenants/{tenant}", operation_id="purgeTenant", status_code=202, responses={200: {"model": TenantView}}
)
async def purge_tenant(
    tenant: Tenant,
    p: P,
    response: Response,
    expected: Expected,
    now: Annotated[bool, Query(description="Delete its data at once, not in 24 hours.")] = False,
    wait: Wait = "0",
) -> TenantView:
    """Take a tenant down for good; its data goes in 24 hours, or at once."""
    return await _answer(p, await p.desk.purge(tenant, expected, at_once=now), response, wait)


@router.post(
    "/v1/tenants/{tenant}/stop", operation_id="stopTenant", status_code=202, responses={200: {"model": TenantView}}
)
async def stop_tenant(tenant: Tenant, p: P, response: Response, expected: Expected, wait: Wait = "0") -> TenantView:
    """Take a tenant down, its last byte confirmed."""
    return await _answer(p, await p.desk.stop(tenant, expected), response, wait)


@router.post(
    "/v1/tenants/{tenant}/restart",
    operation_id="restartTenant",
    status_code=202,
    responses={200: {"model": TenantView}},
)
async def restart_tenant(tenant: Tenant, p: P, response: Response, expected: Expected, wait: Wait = "0") -> TenantView:
    """Restart a tenant's server, on the same epoch."""
    return await _answer(p, await p.desk.restart(tenant, expected), response, wait)


@router.post(
    "/v1/tenants/{tenant}/restore",
    operation_id="restoreTenant",
    status_code=202,
    responses={200: {"model": TenantView}},
    openapi_extra=body_of(RestoreTenant),
)
async def restore_tenant(
    tenant: Tenant, p: P, request: Request, response: Response, expected: Expected, wait: Wait = "0"
) -> TenantView:
    """Bring a tenant back to a moment, in place or as a new tenant; once for each `id`."""
    body = parse(RestoreTenant, await request.body() or b"{}", tenant)
    ask_id = body.id or secrets.token_hex(8)
    if body.at is not None and body.at > time.time() + 60:
        raise Invalid("at: this moment has not come yet", tenant=tenant, field="at")
    if body.as_tenant is None:
        ask = Restore(id=ask_id, at=body.at, accept_data_loss=body.accept_data_loss)
        return await _answer(p, await p.desk.restore(tenant, ask, body.node, expected), response, wait)
    if body.as_tenant == tenant:
        raise Invalid("as: the new tenant needs another name", tenant=tenant, field="as")
    ask = Restore(id=ask_id, at=body.at, source=tenant, accept_data_loss=body.accept_data_loss)
    return await _answer(p, await p.desk.fork(tenant, body.as_tenant, ask, body.node), response, wait)


async def _answer(p: Parts, changed: Changed, response: Response, wait: str) -> TenantView:
    """200 when carried out, else 202 and where to look."""
    tenant, generation = changed.spec.tenant, changed.spec.generation
    end = time.monotonic() + min(parse_duration(wait), LONGEST_WAIT_S)
    while not (done := finished(p, tenant, generation)) and (left := end - time.monotonic()) > 0:
        await p.world.changed(tenant, left)
    if done:
        response.status_code = 200
    response.headers["Location"] = f"/v1/tenants/{tenant}"
    _headers(response, present.etag(p.world.specs[tenant]))
    return present.tenant_view(p, tenant, changed)


def finished(p: Parts, tenant: str, generation: int) -> bool:
    """Whether this generation was carried out, given up or replaced."""
    spec = p.world.specs[tenant]
    return spec.generation > generation or p.observer.observed(tenant) >= generation


def _headers(response: Response, etag: str) -> None:
    response.headers["ETag"] = etag
    response.headers["Cache-Control"] = "no-store"


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _after(cursor: str | None) -> str:
    if not cursor:
        return ""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        raise Invalid("cursor: not one that this API gave", field="cursor") from None
