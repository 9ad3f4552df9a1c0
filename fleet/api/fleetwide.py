"""What concerns the whole fleet: events, discovery, health, metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from fleet.api import present
from fleet.api.parts import Parts
from fleet.api.problems import RESPONSES
from fleet.api.tenants import NAME, P
from fleet.api.view import EventView, Health, Target
from fleet.desk import gone
from fleet.errors import Unavailable
from fleet.events import Event

HEARTBEAT_S = 15.0
# Without an answer of the bucket for this long the controller is not ready. Leases are looked at more often.
BUCKET_S = 30.0

router = APIRouter(responses=RESPONSES)


@router.get(
    "/v1/events",
    operation_id="followEvents",
    tags=["events"],
    response_class=StreamingResponse,
    responses={200: {"description": "Server-sent events; data is an EventView.", "content": {"text/event-stream": {}}}},
)
async def follow_events(
    p: P,
    tenant: Annotated[str | None, Query(pattern=NAME, description="Only this tenant's.")] = None,
    follow: Annotated[bool, Query(description="Go on with what comes; else end after what is known.")] = True,
    tail: Annotated[int | None, Query(ge=0, le=10_000, description="How many past ones first.")] = None,
    last_event_id: Annotated[str | None, Header(description="Resume after this event.")] = None,
) -> StreamingResponse:
    """Events as they happen. Resuming after one that is no longer known begins with an event of kind `gap`."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(p, tenant, last_event_id, tail, follow=follow)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(
    p: Parts, tenant: str | None, last: str | None, tail: int | None, *, follow: bool
) -> AsyncIterator[str]:
    yield ": events\n\n"
    if last is None:
        count = tail if tail is not None else 0 if follow else 1000
        past = [e for e in p.events.recent(p.events.size) if tenant in (None, e.tenant)]
        past = past[-count:] if count else []
        for event in past:
            yield _frame(p, event)
        last = p.events.last_id
    async for item in p.events.follow(last, heartbeat_s=HEARTBEAT_S, end=not follow):
        if item is None:
            yield ": still here\n\n"
        elif tenant in (None, item.tenant) or item.kind == "gap":
            yield _frame(p, item)


def _frame(p: Parts, event: Event) -> str:
    view: EventView = present.event_view(p, event)
    return f"id: {view.id}\nevent: {view.kind}\ndata: {view.model_dump_json(exclude_none=True)}\n\n"


@router.get("/v1/sd", operation_id="discover", tags=["metrics"])
async def discover(p: P) -> list[Target]:
    """Prometheus' HTTP service discovery: every node that lives, and tenants with metrics of their own."""
    found = []
    for name, machine in sorted(p.world.machines.items()):
        if machine.state == "gone":
            continue
        url = urlsplit(p.world.leases[name].url)
        labels = {"__scheme__": url.scheme, "__metrics_path__": "/metrics", "node": name, "kind": "node"}
        found.append(Target(targets=(url.netloc,), labels=labels))
    for tenant, spec in sorted(p.world.specs.items()):
        node = p.world.evidence(tenant).node
        report = p.world.nodes.get(node or "")
        if spec.want != "up" or spec.spec.metrics is None or report is None or node is None:
            continue
        url = urlsplit(report.gateway_url)
        path = f"{url.path.rstrip('/')}/t/{tenant}{spec.spec.metrics}"
        labels = {"__scheme__": url.scheme, "__metrics_path__": path, "tenant": tenant, "node": node, "kind": "tenant"}
        found.append(Target(targets=(url.netloc,), labels=labels))
    return found


@router.get("/healthz", operation_id="health", tags=["health"])
async def health() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", operation_id="ready", tags=["health"])
async def ready(p: P) -> Health:
    """The bucket answers and everything in it is known; else 503 says why."""
    if not p.world.loaded:
        raise Unavailable(f"the bucket was not read yet: {p.bucket.error or 'it is being read'}")
    if p.bucket.error and time.monotonic() - p.bucket.ok_at > BUCKET_S:
        raise Unavailable(f"the bucket does not answer: {p.bucket.error}")
    usable = sum(m.usable for m in p.world.machines.values())
    leader = p.leader.leader
    return Health(
        status="ok",
        nodes_ready=usable,
        tenants=sum(not gone(s) for s in p.world.specs.values()),
        acts=p.leader.acts(),
        leader=leader.controller if leader is not None and not leader.released else "",
        leader_url=leader.url if leader is not None and not leader.released else "",
    )


@router.get("/metrics", operation_id="metrics", tags=["metrics"], response_class=Response)
async def metrics(p: P) -> Response:
    """The controller's own metrics for Prometheus."""
    return Response(p.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
