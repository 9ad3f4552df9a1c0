"""A worker that crashes again and again: it is started with growing pauses, and no node is blamed for it."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from tests.e2e.several.clients import Tenant, clients
from tests.testbed.fleet import Fleet
from tests.testbed.machine import Machine

STARTS = 7
PATIENCE_S = 200.0


def starts(machine: Machine, tenant: str) -> list[float]:
    """When its worker was started, as the engine says, until there are so many starts."""
    found: dict[str, float] = {}
    until = time.monotonic() + PATIENCE_S
    while len(found) < STARTS:
        assert time.monotonic() < until, f"{tenant} was started {len(found)} times in {PATIENCE_S:g} s"
        said = machine.docker("inspect", "-f", "{{.State.StartedAt}}", machine.container(tenant), check=False).strip()
        if said and not said.startswith("0001"):
            found.setdefault(said, time.monotonic())
        time.sleep(0.1)
    return sorted(found.values())


@pytest.mark.long
def test_a_worker_that_crashes_in_a_loop_is_started_ever_more_seldom_and_stays_where_it_is(fleet: Fleet) -> None:
    good, bad = Tenant(fleet, "crash-neighbour", "0"), Tenant(fleet, "crash-loop", "0")
    good.up()
    before = bad.up("--env", "LEDGER_LIVES_S=600")
    fleet.fleet("up", bad.name, "--env", "LEDGER_LIVES_S=1.5", "--no-wait")
    with clients(good):
        good.more()
        gaps = [b - a for a, b in pairwise(starts(fleet.holder(bad.name), bad.name))]
        good.more()
    good.check()
    view = bad.view()
    print(f"\ncrash loop: {', '.join(f'{gap:.1f}' for gap in gaps)} s between starts; {view['state']} {view['reason']}")
    assert gaps[-1] > 2 * gaps[1], f"it is not started more seldom: {gaps}"
    assert (view["node"], view["epoch"]) == (before["node"], before["epoch"])
    assert sorted(fleet.ready_nodes()) == ["a", "b", "c"]
    fleet.fleet("up", bad.name, "--env", "LEDGER_LIVES_S=", "--timeout", "180s")
    with clients(bad):
        bad.more()
    bad.check()
    fleet.fleet("down", bad.name)
    fleet.fleet("down", good.name)
