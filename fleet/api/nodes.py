"""`/v1/nodes`: the machines, and what an operator wants of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from fleet.api import present
from fleet.api.problems import RESPONSES, parse
from fleet.api.tenants import NAME, P, body_of
from fleet.api.view import Drain, NodeDetail, NodeList

router = APIRouter(responses=RESPONSES, tags=["nodes"])

Node = Annotated[str, Path(pattern=NAME, description="A DNS label.")]


@router.get("/v1/nodes", operation_id="listNodes")
async def list_nodes(p: P) -> NodeList:
    """Every machine that ever joined, by name."""
    return NodeList(nodes=present.node_views(p))


@router.get("/v1/nodes/{node}", operation_id="getNode")
async def get_node(node: Node, p: P) -> NodeDetail:
    """A machine, and what a drain has still to do there."""
    p.cordons.known(node)
    return present.node_detail(p, node)


@router.post("/v1/nodes/{node}/cordon", operation_id="cordonNode")
async def cordon(node: Node, p: P) -> NodeDetail:
    """Give it no new tenant; those that it has stay. A drain of it stops."""
    await p.cordons.cordon(node)
    return present.node_detail(p, node)


@router.post("/v1/nodes/{node}/uncordon", operation_id="uncordonNode")
async def uncordon(node: Node, p: P) -> NodeDetail:
    """Let it take tenants again; those that a drain has not moved stay."""
    await p.cordons.open(node)
    return present.node_detail(p, node)


@router.post(
    "/v1/nodes/{node}/drain",
    operation_id="drainNode",
    status_code=202,
    responses={200: {"model": NodeDetail, "description": "Nothing is left there."}},
    openapi_extra=body_of(Drain),
)
async def drain(node: Node, p: P, request: Request, response: Response) -> NodeDetail:
    """Cordon it and move its tenants away, a few at a time, each once there is a place for it."""
    asked = parse(Drain, await request.body() or b"{}", None)
    await p.cordons.drain(node, asked.at_once)
    view = present.node_detail(p, node)
    if not view.leaving:
        response.status_code = 200
    response.headers["Location"] = f"/v1/nodes/{node}"
    return view
