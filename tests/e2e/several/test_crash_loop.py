"""A worker that crashes again and again: it is started with growing pauses, and no node is blamed for it."""

from __future__ import annotations

import time

import pytest

from tests.e2e.several.clients import Tenant, clients
from tests.testbed.fleet import Fleet

WATCHED_S = 40.0


def starts(fleet: Fleet, tenant: str) -> int:
    """How often its worker was started so far, as the nodes' metrics have it."""
    total = 0
    for machine in fleet.machines:
        _, body = fleet.request("GET", f"{machine.agent}/metrics", Authorization=f"Bearer {fleet.token()}")
        for line in body.decode().splitlines():
            if line.startswith("fleet_tenant_restarts_total{") and f'tenant="{tenant}"' in line and "worker" in line:
                total += int(float(line.split()[-1]))
    return total


@pytest.mark.long
def test_a_worker_that_crashes_in_a_loop_is_started_ever_more_seldom_and_stays_where_it_is(fleet: Fleet) -> None:
    good, bad = Tenant(fleet, "crash-neighbour", "0"), Tenant(fleet, "crash-loop", "0")
    good.up()
    before = bad.up("--env", "LEDGER_LIVES_S=600")
    fleet.fleet("up", bad.name, "--env", "LEDGER_LIVES_S=1.5", "--no-wait")
    with clients(good):
        good.more()
        counts = []
        begun = time.monotonic()
        while time.monotonic() - begun < WATCHED_S:
            time.sleep(WATCHED_S / 4)
            counts.append(starts(fleet, bad.name))
            assert sorted(fleet.ready_nodes()) == ["a", "b", "c"]
        good.more()
    good.check()
    view = bad.view()
    assert view["node"] == before["node"], view
    assert view["epoch"] == before["epoch"], view
    assert counts[-1] <= 15, counts
    assert counts[-1] - counts[-2] <= counts[0] + 1, f"it is not started more seldom: {counts}"
    print(f"\ncrash loop: starts after each {WATCHED_S / 4:.0f} s {counts}; {view['state']} {view['reason']}")
    fleet.fleet("up", bad.name, "--env", "LEDGER_LIVES_S=")
    with clients(bad):
        bad.more()
    bad.check()
    fleet.fleet("down", bad.name)
    fleet.fleet("down", good.name)
