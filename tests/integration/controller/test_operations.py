"""What a user asks of a tenant, end to end through the controller and a fake agent."""

from __future__ import annotations

import time


def test_up_answers_when_the_tenant_runs(fleet):
    answer = fleet.up("acme")
    assert answer.status_code == 200
    acme = answer.json()
    assert (acme["state"], acme["node"], acme["generation"], acme["observed_generation"]) == ("running", "n1", 1, 1)
    assert acme["url"] == "http://127.0.0.1:7080/t/acme/"
    assert answer.headers["ETag"] == '"1"'


def test_the_same_put_again_changes_nothing(fleet):
    fleet.up("acme")
    again = fleet.up("acme")
    assert (again.status_code, again.json()["generation"], again.json()["changes"]) == (200, 1, [])


def test_down_and_up_again_keep_the_tenant(fleet):
    fleet.up("acme")
    down = fleet.client.post("/v1/tenants/acme/stop", params={"wait": "20s"})
    assert (down.status_code, down.json()["state"], down.json()["generation"]) == (200, "released", 2)
    up = fleet.up("acme")
    assert (up.json()["state"], up.json()["generation"]) == ("running", 3)


def test_up_costs_little_of_the_controllers_own_time(fleet):
    times = []
    for i in range(10):
        begin = time.perf_counter()
        assert fleet.up(f"t{i}").status_code == 200
        times.append(time.perf_counter() - begin)
    print(sorted(times))
