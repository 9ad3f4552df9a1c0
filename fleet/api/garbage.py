"""Collecting a tenant's garbage on request: its owner judges its epochs, every node the volumes it set aside."""

from __future__ import annotations

import asyncio
from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from fleet.api.problems import RESPONSES
from fleet.api.tenants import P, Tenant
from fleet.api.view import View
from fleet.errors import FleetError
from node.api import GarbageReport

router = APIRouter(responses=RESPONSES, tags=["tenants"])
log = structlog.get_logger("fleet.api")


class GarbageView(View):
    """What each node found of a tenant. `silent` nodes could not be asked: what they set aside is not in here.

    `owned`: some node has the tenant settled, so its epochs were judged.
    """

    tenant: str
    dry_run: bool
    owned: bool
    nodes: tuple[GarbageReport, ...]
    silent: tuple[str, ...] = ()


@router.post("/v1/tenants/{tenant}/gc", operation_id="collectGarbage")
async def collect(
    tenant: Tenant, p: P, dry_run: Annotated[bool, Query(description="Say what would go, delete nothing.")] = False
) -> GarbageView:
    """Delete what no restore of a retained moment needs: dead epochs, and volumes that were set aside."""
    p.desk.find(tenant)
    names = sorted(name for name, m in p.world.machines.items() if m.state != "gone" and name in p.agents)
    answers = await asyncio.gather(
        *(p.agents[name].collect(tenant, dry_run=dry_run) for name in names), return_exceptions=True
    )
    found, silent = [], []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, GarbageReport):
            found.append(answer)
        elif isinstance(answer, FleetError):
            log.warning("a node did not collect", tenant=tenant, node=name, error=str(answer))
            silent.append(name)
        else:
            raise answer
    return GarbageView(
        tenant=tenant, dry_run=dry_run, owned=any(r.owner for r in found), nodes=tuple(found), silent=tuple(silent)
    )
