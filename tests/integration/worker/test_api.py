"""The worker's API, over HTTP, from a real process."""

import json

import pytest


@pytest.fixture
def served(worker):
    return worker.start()


def test_a_run_is_started_finished_and_its_result_given_out(served):
    started = served.run("total", [1, 2, 3], id="sum")
    assert started.status_code == 201
    assert started.headers["location"] == "runs/sum"
    result = served.get("/v1/runs/sum/result?wait=30s")
    assert (result.status_code, result.json()["state"], result.json()["result"]) == (200, "completed", 6)
    assert served.get("/v1/runs/sum").json() == result.json()


def test_starting_again_with_the_same_input_is_the_same_run_and_with_another_a_conflict(served):
    served.run("total", [1], id="once")
    again = served.run("total", [1], id="once")
    assert (again.status_code, again.json()["id"], again.json()["input"]) == (200, "once", [1])
    other = served.run("total", [2], id="once")
    assert (other.status_code, other.json()["type"]) == (409, "urn:tenantry:problem:input-conflict")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"workflow": "nosuch"}, 404, None),
        ({}, 422, "workflow"),
        ({"workflow": 1}, 422, "workflow"),
        ({"workflow": "total", "input": "no list"}, 422, "input"),
        ({"workflow": "total", "input": [1, "x"]}, 422, "input[1]"),
        ({"workflow": "total", "input": [], "id": "no spaces"}, 422, "id"),
        ({"workflow": "total", "input": [], "id": "x" * 129}, 422, "id"),
        ({"workflow": "total", "input": [], "colour": "red"}, 422, "colour"),
        ([1], 422, "body"),
        (None, 422, "body"),
    ],
)
def test_a_bad_start_names_the_field_and_leaves_nothing_behind(refusing, body, status, field):
    answer = refusing.post("/v1/runs", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("field") == field
    assert refusing.get("/v1/runs").json()["runs"] == []


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b'"\\ud800"', b"[" * 100_000, b""])
def test_what_is_not_json_is_told_so(refusing, content):
    answer = refusing.post("/v1/runs", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["field"]) == (400, "body")


def test_another_media_type_is_refused(refusing):
    assert refusing.post("/v1/runs", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_a_body_over_a_mebibyte_is_refused_whether_its_length_is_told_or_not(refusing):
    large = b'"' + b"x" * (1 << 20) + b'"'
    headers = {"content-type": "application/json"}
    assert refusing.post("/v1/runs", content=large, headers=headers).status_code == 413
    assert refusing.post("/v1/runs", content=iter([large, b" "]), headers=headers).status_code == 413
    assert refusing.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=sleeping", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=nonsense", "cursor"),
        ("workflow=", "workflow"),
        ("colour=red", "colour"),
        ("state=%FF", "query"),
    ],
)
def test_a_bad_query_names_the_parameter(refusing, query, field):
    answer = refusing.get(f"/v1/runs?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_runs_are_listed_newest_first_in_pages_and_by_state(served):
    for number in range(5):
        served.run("total", [number], id=f"run-{number}")
        served.get(f"/v1/runs/run-{number}/result?wait=30s")
    served.run("approval", id="waiting")
    first = served.get("/v1/runs?workflow=total&limit=3").json()
    rest = served.get("/v1/runs", params={"workflow": "total", "limit": 3, "cursor": first["cursor"]}).json()
    assert [run["id"] for run in first["runs"] + rest["runs"]] == [f"run-{number}" for number in (4, 3, 2, 1, 0)]
    assert rest["cursor"] is None
    assert [run["id"] for run in served.get("/v1/runs?state=running").json()["runs"]] == ["waiting"]


def test_a_run_that_is_not_there_is_404_everywhere(refusing):
    for path in ("", "/history", "/result"):
        assert refusing.get(f"/v1/runs/nosuch{path}").status_code == 404
    assert refusing.post("/v1/runs/nosuch/signals/approved", {}).status_code == 404
    assert refusing.post("/v1/runs/nosuch/cancel").status_code == 404


def test_a_signal_reaches_its_run_and_a_closed_run_takes_no_more(served):
    served.run("approval", id="a")
    assert served.get("/v1/runs/a/result?wait=50ms").status_code == 202
    assert served.post("/v1/runs/a/signals/approved?signal_id=1", {"by": "Ann"}).status_code == 202
    result = served.get("/v1/runs/a/result?wait=30s")
    assert (result.status_code, result.json()["result"]) == (200, {"by": "Ann"})
    assert served.post("/v1/runs/a/signals/approved", {"by": "Bob"}).status_code == 409


def test_a_signal_needs_no_body(served):
    served.run("approval", id="b")
    assert served.post("/v1/runs/b/signals/approved").status_code == 202
    assert served.get("/v1/runs/b/result?wait=30s").json()["state"] == "completed"


def test_a_run_is_cancelled(served):
    served.run("approval", id="c")
    assert served.post("/v1/runs/c/cancel").status_code == 202
    assert served.get("/v1/runs/c/result?wait=30s").json()["state"] == "cancelled"


def test_a_failed_run_says_why(served):
    served.run("failing", id="f")
    run = served.get("/v1/runs/f/result?wait=30s").json()
    assert run["state"] == "failed"
    assert "as asked" in run["error"]["message"]


def test_the_history_names_every_step_with_its_attempt(served):
    served.run("total", [1, 2], id="h")
    served.get("/v1/runs/h/result?wait=30s")
    events = served.history("h")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    done = [event["body"] for event in events if event["kind"] == "activity_completed"]
    assert [(body["id"], body["attempt"], body["result"]) for body in done] == [(1, 1, 1), (2, 1, 3)]


def test_a_wrong_method_is_405_and_says_which_are_right(refusing):
    answer = refusing.client.put("/v1/runs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, GET, HEAD")


def test_the_tenants_routes_are_beside_the_api_and_cannot_shadow_it(refusing):
    assert refusing.get("/healthz").json() == {"status": "ok"}
    refused = refusing.get("/refused")
    assert (refused.status_code, refused.json()["field"]) == (422, "colour")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refusing.get("/nosuch").json()["status"] == 404


def test_a_bug_of_the_tenant_is_a_problem_document_without_its_traceback(served):
    answer = served.get("/broken")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:tenantry:problem:internal")
    assert "a bug of the tenant" not in answer.text
    served.until(lambda: "a bug of the tenant" in served.log.read_text())


def test_the_metrics_count_runs_and_requests(served):
    served.run("total", [1], id="m")
    served.get("/v1/runs/m/result?wait=30s")
    lines = served.get("/metrics").text.splitlines()
    assert 'worker_runs{state="completed"} 1' in lines
    assert 'worker_requests_total{operation="start_run",method="POST",status="201"} 1' in lines
    assert "worker_ready 1" in lines


def test_every_metric_has_help_and_a_type(served):
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(served.get("/metrics").text))
    assert len(families) > 10
    assert all(family.documentation and family.type in ("counter", "gauge", "histogram") for family in families)
