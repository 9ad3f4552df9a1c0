"""`fleet gc` through the controller: every node is asked, and who could not be is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from node.api import GarbageItem, GarbageReport, GarbageRequest
from tests.integration.controller.conftest import TOKEN


def collects(agent, *, owner, items=()):
    """Let a fake agent answer as a real one does; answers what it was asked."""
    asked = []

    @agent.app.post("/v1/gc/{tenant}")
    async def collect(tenant: str, request: GarbageRequest) -> GarbageReport:
        asked.append(request.dry_run)
        return GarbageReport(tenant=tenant, node=agent.node, dry_run=request.dry_run, owner=owner, items=items)

    return asked


def item(kind, name, *, goes):
    return GarbageItem(kind=kind, name=name, size_bytes=2048, goes=goes, reason="why", message="in words")


def gc(fleet, *words):
    environment = {**os.environ, "FLEET_CONTROLLER": str(fleet.client.base_url), "FLEET_TOKEN": TOKEN}
    command = [Path(sys.executable).with_name("fleet"), "gc", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_every_node_is_asked_and_a_dry_run_stays_one(fleet):
    other = fleet.join("n2")
    fleet.until(lambda: fleet.states() == ["ready", "ready"])
    fleet.up("acme")
    (first,) = (a for name, a in fleet.agents.items() if name != "n2")
    asked = collects(
        first, owner=True, items=(item("epoch", "epoch 1", goes=True), item("epoch", "epoch 2", goes=False))
    )
    also = collects(other, owner=False, items=(item("volume", "/aside/acme-1", goes=True),))
    done = gc(fleet, "acme", "--dry-run", "-o", "json")
    assert done.returncode == 0, done.stderr
    (view,) = json.loads(done.stdout)
    assert (view["owned"], view["dry_run"], view["silent"]) == (True, True, [])
    assert [i["name"] for r in view["nodes"] for i in r["items"]] == ["epoch 1", "epoch 2", "/aside/acme-1"]
    done = gc(fleet, "--all")
    assert done.returncode == 0, done.stderr
    assert "2 epochs and volumes of 1 tenants went: 4k" in done.stderr
    assert "epoch 2" in done.stdout
    assert (asked, also) == ([True, False], [True, False])


def test_a_node_that_does_not_answer_is_named_and_the_rest_is_done(fleet):
    fleet.up("acme")
    done = gc(fleet, "acme")
    assert done.returncode == 1
    assert "could not be asked" in done.stderr
    assert gc(fleet, "nobody").returncode == 3
    assert gc(fleet).returncode == 2
