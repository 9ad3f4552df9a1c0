"""Bad input and wrong callers: each a problem document that says what to do, and nothing changed."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile

import httpx
import pytest

from node.bucket import keys
from tests.integration.controller.conftest import READER, SPEC, TOKEN


def problem(answer, status, kind):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["type"], found["status"]) == (f"urn:fleet:{kind}", status)
    return found


def put(fleet, tenant, spec, **options):
    return fleet.client.put(f"/v1/tenants/{tenant}", json={"spec": spec}, **options)


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({**SPEC, "colour": "red"}, "spec.colour", "Extra inputs are not permitted"),
        ({**SPEC, "port": "8080"}, "spec.port", "valid integer"),
        ({**SPEC, "limits": {"memory": "lots"}}, "spec.limits.memory", "write one like 128m"),
        ({**SPEC, "retention": "soon"}, "spec.retention", "write one like 1s"),
        ({**SPEC, "databases": ["../etc"]}, "spec.databases.0", "not a database file"),
        ({"databases": ["a.db"]}, "spec", "exactly one of app and image"),
        ({**SPEC, "rpo": 0}, "spec", "calls_durable"),
        ({"app": "0" * 64, "databases": ["a.db"]}, "spec.app", "upload it first"),
        ({**SPEC, "secrets": {"key": {"version": 1}}}, "spec.secrets.key", "--secret key=@FILE"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_bad_spec_is_refused_with_its_path(fleet, spec, field, said):
    found = problem(put(fleet, "acme", spec), 422, "invalid")
    assert (found["field"], found["tenant"]) == (field, "acme")
    assert said in found["detail"]
    assert not list(fleet.store.list("specs/"))


@pytest.mark.parametrize("name", ["Acme", "a_b", "-a", "a" * 64, "a.b"])
def test_a_bad_name_is_refused(fleet, name):
    assert problem(put(fleet, name, SPEC), 422, "invalid")["field"] == "tenant"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"spec": 1}', b"\xff", b'{"spec": {}, "more": 1}'])
def test_a_bad_body_is_refused(fleet, body):
    problem(fleet.client.put("/v1/tenants/acme", content=body), 422, "invalid")


def test_database_files_cannot_change(fleet):
    fleet.up("acme")
    found = problem(put(fleet, "acme", {**SPEC, "databases": ["b.db"]}), 422, "invalid")
    assert found["field"] == "spec.databases"


def test_without_a_token_nothing_but_health_answers(fleet):
    with httpx.Client(base_url=fleet.served.url, trust_env=False) as nobody:
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/readyz").status_code == 200
        for path in ("/v1/tenants", "/v1/nodes", "/v1/events", "/v1/sd", "/metrics", "/openapi.json", "/nowhere"):
            answer = nobody.get(path)
            problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        problem(nobody.get("/v1/tenants", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized")
        problem(nobody.get("/v1/tenants", headers={"Authorization": "Basic secret"}), 401, "unauthorized")


def test_a_read_only_token_reads(fleet):
    fleet.up("acme", access="token")
    with httpx.Client(
        base_url=fleet.served.url, headers={"Authorization": f"Bearer {READER}"}, trust_env=False
    ) as reader:
        assert reader.get("/v1/tenants/acme").status_code == 200
        problem(reader.put("/v1/tenants/acme", json={"spec": SPEC}), 403, "forbidden")
        problem(reader.post("/v1/tenants/acme/stop"), 403, "forbidden")
        problem(reader.get("/v1/tenants/acme/token"), 403, "forbidden")


def test_what_is_not_there_is_404(fleet):
    for call in (
        fleet.client.get("/v1/tenants/nobody"),
        fleet.client.delete("/v1/tenants/nobody"),
        fleet.client.post("/v1/tenants/nobody/stop"),
        fleet.client.post("/v1/tenants/nobody/restart"),
        fleet.client.post("/v1/tenants/nobody/restore", json={}),
        fleet.client.get("/v1/tenants/nobody/points"),
        fleet.client.get("/v1/tenants/nobody/logs"),
        fleet.client.get("/v1/apps/" + "0" * 64),
        fleet.client.get("/v1/elsewhere"),
    ):
        problem(call, 404, "not_found")


def test_a_wrong_method_is_405_and_says_which_are_right(fleet):
    answer = fleet.client.post("/v1/nodes")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET"


def test_a_body_over_the_bound_is_413(fleet):
    problem(fleet.client.put("/v1/tenants/acme", content=b" " * (1 << 20) + b"{}"), 413, "too_large")

    def chunks():
        for _ in range(20):
            yield b" " * 65536

    problem(fleet.client.put("/v1/tenants/acme", content=chunks()), 413, "too_large")


def test_if_match_guards_a_change(fleet):
    fleet.up("acme")
    changed = {**SPEC, "env": {"A": "1"}}
    problem(put(fleet, "acme", changed, headers={"If-Match": '"7"'}), 412, "stale")
    assert put(fleet, "acme", changed, headers={"If-Match": '"1"'}).json()["generation"] == 2
    problem(put(fleet, "acme", SPEC, headers={"If-None-Match": "*"}), 412, "stale")
    problem(put(fleet, "other", SPEC, headers={"If-Match": "*"}), 412, "stale")
    assert put(fleet, "other", SPEC, headers={"If-None-Match": "*"}).json()["generation"] == 1


def test_tenants_are_listed_by_label_and_page(fleet):
    for i in range(5):
        fleet.up(f"t{i}", wait="0", labels={"odd": str(i % 2)})
    first = fleet.client.get("/v1/tenants", params={"limit": 2}).json()
    assert [t["tenant"] for t in first["tenants"]] == ["t0", "t1"]
    rest = fleet.client.get("/v1/tenants", params={"cursor": first["cursor"]}).json()
    assert ([t["tenant"] for t in rest["tenants"]], rest["cursor"]) == (["t2", "t3", "t4"], None)
    odd = fleet.client.get("/v1/tenants", params={"label": "odd=1"}).json()
    assert [t["tenant"] for t in odd["tenants"]] == ["t1", "t3"]
    problem(fleet.client.get("/v1/tenants", params={"cursor": "???"}), 422, "invalid")
    problem(fleet.client.get("/v1/tenants", params={"limit": 0}), 422, "invalid")


def test_secrets_are_encrypted_versioned_and_only_in_the_assignment(fleet):
    first = fleet.up("acme", secrets={"key": "hunter2"})
    assert first.json()["spec"]["secrets"] == {"key": {"version": 1}}
    assert "hunter2" not in first.text
    assert b"hunter2" not in fleet.store.get(keys.secret("acme", "key")).body
    assert b"hunter2" not in fleet.store.get(keys.spec("acme")).body
    assert fleet.agents["n1"].assigned[-1].secrets == {"key": "hunter2"}
    assert fleet.up("acme", secrets={"key": "hunter2"}).json()["generation"] == 1
    assert fleet.up("acme", secrets={"key": "new"}).json()["spec"]["secrets"] == {"key": {"version": 2}}
    kept = put(fleet, "acme", {**SPEC, "secrets": {"key": {"version": 1}}})
    assert kept.json()["generation"] == 3


def test_access_by_token_has_a_token_of_its_own(fleet):
    assert fleet.up("acme").json()["spec"]["access"] == "open"
    assert fleet.client.get("/v1/tenants/acme/token").json()["token"] is None
    fleet.up("guarded", access="token")
    token = fleet.client.get("/v1/tenants/guarded/token").json()["token"]
    told = fleet.agents["n1"].assigned[-1]
    assert told.token_sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert token not in str(told.secrets.values())


def archive(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
            else:
                info.linkname = value
                tar.addfile(info)
    return out.getvalue()


def upload(fleet, body, sha256=None):
    return fleet.client.put(f"/v1/apps/{sha256 or hashlib.sha256(body).hexdigest()}", content=body)


def test_an_app_is_stored_once_by_its_hash(fleet):
    body = archive(("app.py", tarfile.REGTYPE, b"x"), ("lib/a", tarfile.SYMTYPE, "../app.py"))
    sha256 = hashlib.sha256(body).hexdigest()
    assert upload(fleet, body).status_code == 201
    assert upload(fleet, body).status_code == 200
    assert fleet.store.get(keys.app(sha256)).body == body
    assert fleet.client.get(f"/v1/apps/{sha256}").json() == {"sha256": sha256, "size_bytes": len(body)}
    spec = {"app": sha256, "databases": ["a.db"]}
    assert put(fleet, "acme", spec, params={"wait": "60s"}).json()["state"] == "running"


@pytest.mark.parametrize(
    "body",
    [
        archive(("/etc/passwd", tarfile.REGTYPE, b"x")),
        archive(("../out", tarfile.REGTYPE, b"x")),
        archive(("a/../../out", tarfile.REGTYPE, b"x")),
        archive(("a/link", tarfile.SYMTYPE, "../../out")),
        archive(("link", tarfile.SYMTYPE, "/etc/passwd")),
        archive(("link", tarfile.LNKTYPE, "../out")),
        archive(("fifo", tarfile.FIFOTYPE, "")),
        archive(("app.py", tarfile.REGTYPE, b"x" * 9000))[:60],
        b"not an archive",
        b"",
    ],
    ids=["absolute", "parent", "inner", "link-up", "link-absolute", "hardlink", "fifo", "cut", "text", "empty"],
)
def test_an_archive_that_could_leave_its_folder_is_refused(fleet, body):
    problem(upload(fleet, body), 422, "invalid")
    assert not list(fleet.store.list("apps/"))


def test_an_app_that_is_not_what_it_says_is_refused(fleet):
    problem(upload(fleet, archive(), "0" * 64), 422, "invalid")
    problem(fleet.client.put("/v1/apps/xyz", content=b"x"), 422, "invalid")


def test_an_app_over_the_bound_is_refused_before_it_is_read(fleet):
    connection = http.client.HTTPConnection("127.0.0.1", fleet.served.port, timeout=20)
    connection.putrequest("PUT", "/v1/apps/" + "0" * 64)
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", str((256 << 20) + 1))
    connection.endheaders(b"x")
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["type"]) == (413, "urn:fleet:too_large")
    connection.close()


def events(fleet, last=None, **params):
    headers = {"Last-Event-ID": last} if last else {}
    text = fleet.client.get("/v1/events", params={"follow": "false", **params}, headers=headers).text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def test_events_resume_where_they_were_left(fleet):
    fleet.up("acme")
    seen = events(fleet, tenant="acme")
    assert seen[0]["kind"] == "applied"
    assert any(e.get("state") == "running" for e in seen)
    middle = seen[0]["id"]
    assert events(fleet, last=middle, tenant="acme") == seen[1:]
    gap, *rest = events(fleet, last="another-run-5", tenant="acme")
    assert (gap["kind"], rest) == ("gap", seen)


def test_events_are_followed(fleet):
    with fleet.client.stream("GET", "/v1/events", params={"tenant": "acme"}) as stream:
        lines = stream.iter_lines()
        next(lines)
        fleet.up("acme")
        for line in lines:
            if line.startswith("data: ") and json.loads(line[6:]).get("state") == "running":
                break


def test_logs_and_points_come_from_the_node(fleet):
    fleet.up("acme")
    assert fleet.client.get("/v1/tenants/acme/logs").text == "hello from worker of acme\n"
    assert fleet.client.get("/v1/tenants/acme/logs", params={"container": "sidecar"}).text.startswith("hello from side")
    assert fleet.client.get("/v1/tenants/acme/points").json() == {"tenant": "acme", "points": []}


def test_discovery_names_nodes_and_tenants_with_metrics(fleet):
    fleet.up("acme", metrics="/metrics")
    fleet.up("other")
    found = fleet.client.get("/v1/sd").json()
    assert [t["labels"]["kind"] for t in found] == ["node", "tenant"]
    assert found[1] == {
        "targets": ["127.0.0.1:7080"],
        "labels": {
            "__scheme__": "http",
            "__metrics_path__": "/t/acme/metrics",
            "tenant": "acme",
            "node": "n1",
            "kind": "tenant",
        },
    }


def test_metrics_count_tenants_nodes_and_operations(fleet):
    fleet.up("acme")
    text = fleet.client.get("/metrics").text
    for line in (
        'fleet_tenants{state="running"} 1.0',
        'fleet_nodes{state="ready"} 1.0',
        'fleet_leaving_tenants{stage="stuck"} 0.0',
        "fleet_controller_acts 1.0",
        'fleet_operations_total{operation="up",outcome="done"} 1.0',
        'fleet_operation_duration_seconds_count{operation="up"} 1.0',
        "# TYPE fleet_failovers_total counter",
        "# TYPE fleet_reconcile_duration_seconds histogram",
        "# TYPE fleet_bucket_request_duration_seconds histogram",
        "# TYPE fleet_bucket_errors_total counter",
    ):
        assert line in text, line


def test_nodes_show_what_is_used(fleet):
    fleet.up("acme", limits={"memory": "256m"})
    (node,) = fleet.client.get("/v1/nodes").json()["nodes"]
    assert (node["state"], node["tenants"], node["memory_used_bytes"]) == ("ready", 1, 256 << 20)


@pytest.mark.parametrize(("path", "what"), [("/v1/tenants/Bad_Name", "tenant"), ("/v1/nodes/Bad_Name", "node")])
def test_a_name_that_is_none_is_told_what_one_looks_like(fleet, path, what):
    answer = fleet.client.get(path)
    problem(answer, 422, "invalid")
    assert answer.json()["detail"] == f"'Bad_Name' is not a {what}'s name: 1 to 63 of a-z, 0-9 and '-' inside"
