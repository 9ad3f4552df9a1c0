"""A machine that falls silent: its session is ended once, its tenants come up elsewhere, and it loses what it had."""

from __future__ import annotations

import time

import pytest

from node.bucket import cas, keys
from node.bucket.errors import Conflict
from node.bucket.records import Lease, Owner

QUICK = {"ttl_s": 1.5, "margin_s": 0.5}


@pytest.fixture
def pair(bare):
    """Two machines that renew, and a controller."""
    for node in ("n1", "n2"):
        bare.join(node, **QUICK)
    bare.start()
    bare.until(lambda: [n["state"] for n in bare.client.get("/v1/nodes").json()["nodes"]] == ["ready", "ready"])
    return bare


def lease(fleet, node):
    return cas.read(fleet.store, keys.node(node), Lease).record


def test_the_tenants_of_a_silent_machine_come_up_on_another(pair):
    assert pair.up("acme", node=None).json()["node"] == "n1"
    pair.agents["n1"].silent.set()
    shown = pair.until(lambda: (t := pair.get("acme"))["node"] == "n2" and t["state"] == "running" and t)
    assert shown["epoch"] == 2
    assert lease(pair, "n1").state == "gone"
    metrics = pair.client.get("/metrics").text
    assert 'fleet_failovers_total{reason="lease_expired"} 1.0' in metrics


def test_a_zombies_renewal_fails_and_its_agent_is_believed_no_more(pair):
    pair.up("acme")
    zombie = pair.agents["n1"]
    zombie.silent.set()
    pair.until(lambda: pair.get("acme")["node"] == "n2")
    with pytest.raises(Conflict):
        zombie.renew()
    zombie.report("acme", state="running", epoch=1)
    pair.until(lambda: pair.get("acme")["state"] == "running")
    assert cas.read(pair.store, keys.owner("acme"), Owner).record.node == "n2"


def test_a_machine_whose_agent_is_away_but_which_renews_is_not_dead(pair):
    pair.up("acme")
    agent = pair.agents.pop("n1")
    agent.closing = True
    agent.served.call(agent._changed.set)
    agent.served.stop()
    pair.until(lambda: pair.client.get("/v1/nodes").json()["nodes"][0]["state"] == "unreachable")
    until = time.monotonic() + 2 * (QUICK["ttl_s"] + QUICK["margin_s"])
    while time.monotonic() < until:
        assert lease(pair, "n1").state == "active"
        time.sleep(0.1)
    shown = pair.get("acme")
    assert (shown["node"], shown["reason"]) == ("n1", "node_unreachable")
    agent.silent.set()


def test_a_machine_that_comes_back_is_used_again(pair):
    zombie = pair.agents["n1"]
    zombie.silent.set()
    pair.until(lambda: pair.client.get("/v1/nodes").json()["nodes"][0]["state"] == "gone")
    zombie.silent.clear()
    zombie.join(zombie.url)
    pair.until(lambda: pair.client.get("/v1/nodes").json()["nodes"][0]["state"] == "ready")
    zombie.silent.set()
    pair.until(lambda: pair.client.get("/v1/nodes").json()["nodes"][0]["state"] == "gone")
    assert lease(pair, "n1").session == 2
