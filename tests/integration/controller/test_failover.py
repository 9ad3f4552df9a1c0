"""A machine that falls silent: its session is ended once, its tenants come up elsewhere, and it loses what it had."""

from __future__ import annotations

import pytest

from node.bucket import cas, keys
from node.bucket.errors import Ambiguous, Conflict
from node.bucket.records import Lease, Owner
from tests.integration.controller.conftest import QUICK_LEASE


@pytest.fixture
def pair(bare):
    """Two machines and a controller. The first one's lease is short: its end is not long in coming."""
    bare.join("n1", **QUICK_LEASE)
    bare.join("n2")
    bare.start()
    bare.until(lambda: bare.states() == ["ready", "ready"])
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


def test_a_machine_whose_agent_is_away_but_which_renews_is_not_dead(bare):
    bare.join("n1", ttl_s=3.0, margin_s=2.0)
    bare.join("n2")
    bare.start()
    bare.until(lambda: bare.states() == ["ready", "ready"])
    bare.up("acme")
    agent = bare.agents.pop("n1")
    agent.closing = True
    agent.served.call(agent._changed.set)
    agent.served.stop()
    bare.until(lambda: bare.states()[0] == "unreachable")
    before = lease(bare, "n1").seq
    # As many renewals as take longer than the lease lasts, at three in its time.
    bare.until(lambda: lease(bare, "n1").seq > before + 6)
    assert lease(bare, "n1").state == "active"
    shown = bare.get("acme")
    assert (shown["node"], shown["reason"]) == ("n1", "node_unreachable")
    agent.silent.set()


def test_a_tenant_of_a_machine_that_vanished_is_not_said_to_run(bare):
    bare.join("n1", ttl_s=1.0, margin_s=3.0)
    bare.start()
    bare.until(lambda: bare.states() == ["ready"])
    bare.up("acme")
    agent = bare.agents.pop("n1")
    agent.served.call(agent.close)
    agent.served.stop()
    shown = bare.until(lambda: (t := bare.get("acme"))["reason"] == "node_overdue" and t)
    assert (shown["state"], shown["node"]) == ("frozen", "n1")
    shown = bare.until(lambda: (t := bare.get("acme"))["state"] == "pending" and t)
    assert "n1 is gone" in shown["message"]


def test_a_machine_that_comes_back_is_used_again(pair):
    zombie = pair.agents["n1"]
    zombie.silent.set()
    pair.until(lambda: pair.states()[0] == "gone")
    zombie.silent.clear()
    zombie.join(zombie.url)
    pair.until(lambda: pair.states()[0] == "ready")
    zombie.silent.set()
    pair.until(lambda: pair.states()[0] == "gone")
    assert lease(pair, "n1").session == 2


class LosesAnswers:
    """A store that applies the first end of a session and answers that it does not know."""

    def __init__(self, inner):
        self._inner, self.lost = inner, 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def replace(self, key, body, etag):
        answer = self._inner.replace(key, body, etag)
        if key == keys.node("n1") and b'"state":"gone"' in body and not self.lost:
            self.lost += 1
            raise Ambiguous("the answer was lost", key=key)
        return answer


def test_an_end_whose_answer_is_lost_is_repeated_until_it_is_known(bare):
    bare.join("n1", **QUICK_LEASE)
    bare.join("n2")
    flaky = LosesAnswers(bare.store)
    bare.start(store=flaky)
    bare.until(lambda: bare.states() == ["ready", "ready"])
    bare.up("acme")
    bare.agents["n1"].silent.set()
    bare.until(lambda: bare.get("acme")["node"] == "n2")
    assert flaky.lost == 1
    said = [e for e in bare.controller.events.recent(1000) if e.reason == "lease_expired" and e.kind == "node"]
    assert len(said) == 1


@pytest.mark.store
def test_on_a_real_store_the_renewal_of_whom_was_given_up_is_refused(minio, bare):
    bare.store = minio.store(minio.new_bucket())
    bare.join("n1", **QUICK_LEASE)
    bare.join("n2")
    bare.start()
    bare.until(lambda: bare.states() == ["ready", "ready"])
    bare.up("acme")
    zombie = bare.agents["n1"]
    zombie.silent.set()
    bare.until(lambda: bare.get("acme")["node"] == "n2")
    with pytest.raises(Conflict):
        zombie.renew()
    assert cas.read(bare.store, keys.owner("acme"), Owner).record.epoch == 2
