"""Collecting garbage on request. Of a tenant its owner judges the epochs, every node the volumes that it set aside; app
archives are everybody's, and this controller's to judge."""

from __future__ import annotations

import asyncio
from typing import Annotated

import structlog
from fastapi import APIRouter, Query

from fleet.api.problems import RESPONSES
from fleet.api.tenants import P, Tenant
from fleet.api.view import View
from fleet.bucket import translated
from fleet.core.shelf import WHY
from fleet.errors import FleetError
from node.api import GarbageItem, GarbageReport

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


class AppsView(View):
    """The app archives that no spec refers to: each stays or is deleted; with `dry_run` it would be."""

    dry_run: bool
    items: tuple[GarbageItem, ...]


DryRun = Annotated[bool, Query(description="Say what would go, delete nothing.")]


@router.post("/v1/gc", operation_id="collectApps")
async def collect_apps(p: P, dry_run: DryRun = False) -> AppsView:
    """Delete app archives that no spec has referred to for the retention."""
    p.desk.all_known()
    with translated(None, writes=not dry_run):
        fates = await p.shelf.collect(dry_run=dry_run)
    items = (
        GarbageItem(
            kind="app", name=f"app {f.sha256[:12]}", objects=1, size_bytes=f.size_bytes, goes=f.goes, reason=f.why,
            message=WHY[f.why],
        )
        for f in fates
    )  # fmt: skip
    return AppsView(dry_run=dry_run, items=tuple(items))


@router.post("/v1/tenants/{tenant}/gc", operation_id="collectGarbage")
async def collect(tenant: Tenant, p: P, dry_run: DryRun = False) -> GarbageView:
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
