"""What a user asks of a tenant, end to end through the controller and a fake agent."""

from __future__ import annotations

from node.bucket import keys
from node.bucket.records import Spec


def stored(fleet, tenant):
    return Spec.decode(fleet.store.get(keys.spec(tenant)).body, key="spec")


def test_up_answers_when_the_tenant_runs(fleet):
    answer = fleet.up("acme")
    assert answer.status_code == 200
    acme = answer.json()
    assert (acme["state"], acme["node"], acme["generation"], acme["observed_generation"]) == ("running", "n1", 1, 1)
    assert acme["url"] == "http://127.0.0.1:7080/t/acme/"
    assert answer.headers["ETag"] == '"1"'
    assert {"path": "image", "old": None, "new": "server:1"} in acme["changes"]


def test_the_same_put_again_changes_nothing(fleet):
    fleet.up("acme")
    again = fleet.up("acme")
    assert (again.status_code, again.json()["generation"], again.json()["changes"]) == (200, 1, [])


def test_a_dry_run_writes_nothing(fleet):
    new = fleet.client.put(
        "/v1/tenants/acme", params={"dry_run": "true"}, json={"spec": {"image": "a", "databases": ["a.db"]}}
    )
    assert (new.status_code, new.json()["creates"]) == (200, True)
    assert fleet.client.get("/v1/tenants/acme").status_code == 404
    fleet.up("acme")
    body = {"spec": {"image": "server:1", "databases": ["app.db"], "env": {"A": "1"}}}
    change = fleet.client.put("/v1/tenants/acme", params={"dry_run": "true"}, json=body).json()
    assert (change["creates"], change["restarts"]) == (False, True)
    assert change["changes"] == [{"path": "env.A", "old": None, "new": "1"}]
    assert fleet.get("acme")["generation"] == 1


def test_down_and_up_again_keep_the_tenant(fleet):
    fleet.up("acme")
    down = fleet.client.post("/v1/tenants/acme/stop", params={"wait": "60s"})
    assert (down.status_code, down.json()["state"], down.json()["generation"]) == (200, "released", 2)
    up = fleet.up("acme")
    assert (up.json()["state"], up.json()["generation"], up.json()["epoch"]) == ("running", 3, 1)


def test_restart_is_a_generation_of_its_own(fleet):
    fleet.up("acme")
    answer = fleet.client.post("/v1/tenants/acme/restart", params={"wait": "60s"}).json()
    assert (answer["state"], answer["generation"]) == ("running", 2)
    assert fleet.agents["n1"].assigned[-1].restarts == 1


def test_a_change_that_does_not_get_healthy_is_rolled_back(fleet):
    fleet.agents["n1"].bad_images.add("server:bad")
    fleet.up("acme")
    fleet.until(lambda: stored(fleet, "acme").proven == 1)
    answer = fleet.up("acme", image="server:bad").json()
    assert (answer["rolled_back"], answer["spec"]["image"], answer["generation"]) == (True, "server:1", 3)
    fleet.until(lambda: fleet.get("acme")["observed_generation"] == 3)
    shown = fleet.get("acme")
    assert (shown["state"], shown["reason"], shown["rolled_back"]) == ("running", "rolled_back", True)
    assert "generation 2 of acme did not get healthy" in shown["message"]
    assert fleet.up("acme").json()["rolled_back"] is False


def test_a_new_tenant_that_does_not_get_healthy_is_failed(fleet):
    fleet.agents["n1"].bad_images.add("server:bad")
    answer = fleet.up("acme", image="server:bad")
    assert (answer.status_code, answer.json()["state"], answer.json()["reason"]) == (200, "failed", "unhealthy")


def test_a_tenant_without_a_node_says_why_and_comes_up_when_there_is_one(bare):
    bare.start()
    waiting = bare.up("acme", wait="100ms")
    assert (waiting.status_code, waiting.headers["Location"]) == (202, "/v1/tenants/acme")
    shown = bare.until(lambda: (v := bare.get("acme")) and v["reason"] and v)
    assert (shown["state"], shown["reason"]) == ("pending", "no_node")
    bare.join("n1")
    bare.until(lambda: bare.get("acme")["state"] == "running")


def test_one_stuck_tenant_delays_no_other(fleet):
    fleet.agents["n1"].behaviour["stuck"] = "hang"
    assert fleet.up("stuck", wait="0").status_code == 202
    for i in range(5):
        assert fleet.up(f"t{i}").json()["state"] == "running"
    assert fleet.get("stuck")["state"] == "pending"


def test_what_the_agent_refuses_is_said(fleet):
    fleet.agents["n1"].behaviour["acme"] = "refuse"
    fleet.up("acme", wait="0")
    shown = fleet.until(lambda: (v := fleet.get("acme"))["reason"] == "refused" and v)
    assert shown["state"] == "failed"
    fleet.agents["n1"].behaviour.clear()
    fleet.until(lambda: fleet.get("acme")["state"] == "running")


def test_a_purge_waits_unless_told_and_the_name_is_born_anew_at_a_new_epoch(fleet):
    fleet.up("acme", secrets={"key": "v"})
    purged = fleet.client.delete("/v1/tenants/acme", params={"wait": "60s"})
    assert (purged.status_code, purged.json()["state"]) == (200, "purged")
    assert purged.json()["purge_after"] > purged.json()["updated_at"] + 23 * 3600
    assert fleet.up("acme").status_code == 409
    assert fleet.agents["n1"].purged == []
    fleet.client.delete("/v1/tenants/acme", params={"now": "true"})
    fleet.until(lambda: fleet.client.get("/v1/tenants/acme").status_code == 404)
    assert fleet.agents["n1"].purged == ["acme"]
    assert not list(fleet.store.list("secrets/acme/"))
    again = fleet.up("acme", databases=["other.db"]).json()
    assert (again["state"], again["epoch"], again["generation"]) == ("running", 2, 4)


def test_a_restore_happens_once_for_its_id(fleet):
    fleet.up("acme")
    body = {"id": "r1", "at": 1000.5}
    first = fleet.client.post("/v1/tenants/acme/restore", params={"wait": "60s"}, json=body).json()
    again = fleet.client.post("/v1/tenants/acme/restore", params={"wait": "60s"}, json=body).json()
    assert (first["generation"], again["generation"]) == (2, 2)
    assert fleet.agents["n1"].assigned[-1].restore.id == "r1"
    clash = fleet.client.post("/v1/tenants/acme/restore", json={"id": "r1", "at": 5})
    assert clash.status_code == 409


def test_a_restore_as_a_new_tenant_copies_spec_and_secrets(fleet):
    fleet.up("acme", secrets={"key": "v"}, env={"A": "1"})
    body = {"id": "r1", "as": "copy"}
    copy = fleet.client.post("/v1/tenants/acme/restore", params={"wait": "60s"}, json=body).json()
    assert (copy["tenant"], copy["state"], copy["spec"]["env"]) == ("copy", "running", {"A": "1"})
    told = fleet.agents["n1"].assigned[-1]
    assert (told.tenant, told.secrets, told.restore.source) == ("copy", {"key": "v"}, "acme")
    again = fleet.client.post("/v1/tenants/acme/restore", json=body)
    assert (again.json()["generation"], again.status_code) == (1, 200)
    other = fleet.client.post("/v1/tenants/acme/restore", json={"id": "r2", "as": "copy"})
    assert other.status_code == 409


def test_a_pinned_tenant_moves_by_going_down_first(fleet):
    fleet.up("acme")
    fleet.join("n2")
    fleet.until(lambda: len([n for n in fleet.client.get("/v1/nodes").json()["nodes"] if n["state"] == "ready"]) == 2)
    fleet.up("acme", node="n2")
    shown = fleet.until(lambda: (v := fleet.get("acme"))["node"] == "n2" and v["state"] == "running" and v)
    assert shown["epoch"] == 2
    assert fleet.agents["n1"].reports["acme"].state == "released"


def test_an_agent_that_was_started_again_is_told_everything_again(fleet):
    fleet.up("acme", secrets={"key": "v"})
    agent = fleet.restart_agent("n1")
    fleet.until(lambda: agent.assigned and fleet.get("acme")["state"] == "running")
    assert agent.assigned[-1].secrets == {"key": "v"}


def test_an_agent_that_forgot_a_tenant_is_told_again(fleet):
    fleet.up("acme")
    agent = fleet.agents["n1"]
    agent.served.call(agent.forget)
    fleet.until(lambda: agent.assigned and fleet.get("acme")["state"] == "running")


def test_a_controller_that_starts_again_knows_everything(fleet):
    fleet.up("acme", secrets={"key": "v"})
    fleet.up("beta")
    fleet.client.post("/v1/tenants/beta/stop", params={"wait": "60s"})
    fleet.stop()
    fleet.start()
    fleet.until(lambda: fleet.get("acme")["state"] == "running")
    assert fleet.get("acme")["generation"] == 1
    assert fleet.get("beta")["state"] == "released"
    fleet.until(lambda: fleet.agents["n1"].assigned[-1].secrets == {"key": "v"})
