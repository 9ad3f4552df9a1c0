"""Several controllers on one bucket: one acts, the others answer and take over; two that both act do no harm."""

from __future__ import annotations

import contextlib
import random
import threading

import httpx
import pytest

from fleet.app import Controller
from fleet.core.leading import Me
from fleet.metrics import Metrics
from node.bucket import cas, keys
from node.bucket.records import Leader, Lease, Owner
from tests.integration.controller.conftest import QUICK_LEASE, QUICK_LOOKS, TOKEN, Fleet, Served
from tests.integration.controller.processes import running
from tests.testbed.process import wait_until

SPEC = {"image": "server:1", "databases": ["app.db"]}
# Longer than a busy machine stands still: nobody takes over from one that lives.
TTL_S = 15.0


@contextlib.contextmanager
def controllers(fleet: Fleet, *, both_act=False, every=QUICK_LOOKS):
    """Two controllers of this fleet, `a` having been there first; each with its own client as `fleet`-like values."""
    made = []
    try:
        for name in ("a", "b"):
            me = Me(name, f"http://{name}", ttl_s=TTL_S)
            one = Fleet(fleet.store, fleet.settings, agents=fleet.agents)
            one.controller = Controller(fleet.settings, fleet.store, Metrics(), every, me)
            if both_act:
                one.controller.leader.acts = lambda: True
                one.controller.loop._acts = one.controller.leases._acts = lambda: True
            one.served = Served(one.controller.app).start()
            headers = {"Authorization": f"Bearer {TOKEN}"}
            one.client = httpx.Client(base_url=one.served.url, headers=headers, timeout=90, trust_env=False)
            made.append(one)
            one.until(lambda one=one: one.client.get("/readyz").status_code == 200)
        yield made
    finally:
        for one in made:
            one.stop()


def leads(one):
    return one.client.get("/readyz").json()["acts"]


def leader_of(one):
    return one.client.get("/readyz").json()["leader"]


@pytest.fixture
def machines(bare):
    """Two of them."""
    for node in ("n1", "n2"):
        bare.join(node)
    return bare


@pytest.fixture
def mortal(bare):
    """Two of them; the end of the first one is not long in coming."""
    bare.join("n1", **QUICK_LEASE)
    bare.join("n2")
    return bare


def test_the_first_acts_and_both_say_who(machines):
    with controllers(machines) as (a, b):
        assert (leads(a), leads(b)) == (True, False)
        assert (leader_of(a), leader_of(b)) == ("a", "a")


def test_an_operation_is_counted_once_and_the_metrics_say_who_acts(machines):
    with controllers(machines) as (a, b):
        assert a.up("acme").json()["state"] == "running"
        b.until(lambda: b.client.get("/v1/tenants/acme").status_code == 200 and b.get("acme")["state"] == "running")
        ones = [one.client.get("/metrics").text for one in (a, b)]
        done = 'fleet_operations_total{operation="up",outcome="done"}'
        assert [done in text for text in ones] == [True, False]
        assert ["fleet_controller_acts 1.0" in text for text in ones] == [True, False]
        assert ["fleet_controller_acts 0.0" in text for text in ones] == [False, True]


def test_the_next_takes_over_at_once_from_one_that_left_in_order(machines):
    with controllers(machines) as (a, b):
        a.up("acme")
        a.stop()
        b.until(lambda: leads(b))
        assert b.get("acme")["state"] == "running"
        assert b.client.post("/v1/tenants/acme/stop", params={"wait": "60s"}).json()["state"] == "released"


def test_a_change_through_one_that_stands_by_is_carried_out_by_the_one_that_acts(machines):
    slow = QUICK_LOOKS.__class__(soon_s=0.1, leases_s=0.2, specs_s=3600.0, owners_s=0.2, standby_s=3600.0)
    with controllers(machines, every=slow) as (a, b):
        done = b.up("acme")
        assert (done.status_code, done.json()["state"]) == (200, "running")
        assert a.get("acme")["state"] == "running"
        b.client.post("/v1/nodes/n1/cordon").raise_for_status()
        a.until(lambda: a.states()[0] == "cordoned")


def test_one_that_stands_by_shows_what_was_changed_through_the_other(machines):
    with controllers(machines) as (a, b):
        a.up("acme")
        b.until(lambda: b.client.get("/v1/tenants/acme").status_code == 200)
        b.until(lambda: b.get("acme")["state"] == "running")


def test_only_the_one_that_acts_ends_a_session(mortal):
    with controllers(mortal) as (a, b):
        a.up("acme")
        b.until(lambda: b.client.get("/v1/tenants/acme").status_code == 200)
        mortal.agents["n1"].silent.set()
        b.until(lambda: b.get("acme")["node"] == "n2" and b.get("acme")["state"] == "running")
        counted = [f'fleet_failovers_total{{reason="{r}"}} 1.0' for r in ("lease_expired", "node_gone")]
        assert sum(line in one.client.get("/metrics").text for one in (a, b) for line in counted) == 1


def test_two_that_both_act_do_no_harm(mortal):
    dice = random.Random(4)
    tenants = [f"t{i}" for i in range(6)]
    with controllers(mortal, both_act=True) as both:

        def ask(tenant, seed):
            own = random.Random(seed)
            for _ in range(8):
                one = own.choice(both)
                if own.random() < 0.7:
                    one.up(tenant, wait="0", env={"N": str(own.randrange(3))})
                else:
                    one.client.post(f"/v1/tenants/{tenant}/stop")

        threads = [threading.Thread(target=ask, args=(t, dice.random())) for t in tenants]
        for thread in threads:
            thread.start()
        mortal.agents["n1"].silent.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        for tenant in tenants:
            both[0].up(tenant, env={"N": "last"})
        for tenant in tenants:
            for one in both:
                one.until(lambda one=one, t=tenant: (s := one.get(t))["node"] == "n2" and s["state"] == "running")
            owner = cas.read(mortal.store, keys.owner(tenant), Owner).record
            assert (owner.node, owner.state) == ("n2", "running")
        lease = cas.read(mortal.store, keys.node("n1"), Lease).record
        assert (lease.session, lease.state) == (1, "gone")


@pytest.mark.long
@pytest.mark.store
def test_another_takes_over_when_the_one_that_acts_is_killed(minio, tmp_path):
    with running(minio, tmp_path / "p") as both, both.second() as (second, client):
        both.client.put("/v1/tenants/acme", params={"wait": "60s"}, json={"spec": SPEC}).raise_for_status()
        assert client.get("/readyz").json()["acts"] is False
        both.controller.kill()
        wait_until(lambda: client.get("/readyz").json()["acts"], "the second one to act", timeout_s=40)
        stopped = client.post("/v1/tenants/acme/stop", params={"wait": "60s"}).json()
        assert (stopped["state"], stopped["reason"]) == ("released", "")
        both.start_controller()
        assert both.client.get("/readyz").json()["acts"] is False
        leader = cas.read(minio.store(both.bucket), keys.LEADER, Leader).record
        assert leader.controller.endswith(str(second))
