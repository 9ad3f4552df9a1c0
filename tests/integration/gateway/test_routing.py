"""Which tenant a request goes to, and what that tenant gets to see of it."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import httpx
import pytest

from node.agent.gateway.config import GatewayConfig
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.ports import Route
from tests.integration.gateway.conftest import Running
from tests.integration.gateway.parts import UID, HostProcess, Upstream, free_port, upstream

TOKEN = "right-and-secret"
TOKEN_SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()


def headers_of(answer: dict[str, list[list[str]]]) -> dict[str, str]:
    return dict(answer["headers"])


def test_a_path_leads_to_its_tenant_without_the_prefix(running: Running, acme: Upstream, beta: Upstream) -> None:
    for name in ("acme", "beta"):
        seen = running.client.get(f"/t/{name}/some//thing/?q=%2F&x").json()
        assert (seen["name"], seen["path"], seen["query"]) == (name, "/some//thing/", "q=%2F&x")
        assert headers_of(seen)["x-forwarded-prefix"] == f"/t/{name}"
        assert headers_of(seen)["x-forwarded-for"] == "127.0.0.1"
        assert headers_of(seen)["x-forwarded-proto"] == "http"
        assert headers_of(seen)["x-forwarded-host"] == f"127.0.0.1:{running.port}"
    assert running.client.get("/t/acme/").json()["path"] == "/"


def test_a_host_leads_to_its_tenant_with_the_path_untouched(running: Running, acme: Upstream, beta: Upstream) -> None:
    seen = running.client.get("/t/beta/x", headers={"Host": f"ACME.fleet.test:{running.port}"}).json()
    assert (seen["name"], seen["path"]) == ("acme", "/t/beta/x")
    assert "x-forwarded-prefix" not in headers_of(seen)
    assert running.client.get("/", headers={"Host": "beta.fleet.test."}).json()["name"] == "beta"
    assert running.client.get("/", headers={"Host": "a.acme.fleet.test"}).status_code == 404
    assert running.client.get("/", headers={"Host": ".fleet.test"}).status_code == 404
    assert running.client.get("/t/acme/", headers={"Host": "acme.elsewhere.test"}).json()["name"] == "acme"


def test_the_bare_prefix_is_redirected_into_the_tenant(running: Running, acme: Upstream) -> None:
    answer = running.client.get("/t/acme")
    assert (answer.status_code, answer.headers["location"]) == (308, "/t/acme/")
    assert running.client.post("/t/acme?a=b").headers["location"] == "/t/acme/?a=b"


def test_what_a_client_claims_about_its_way_is_taken_out(running: Running, acme: Upstream) -> None:
    forged = {
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-Port": "1",
        "X_Forwarded_Prefix": "/evil",
        "X-Real-IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Kept": "yes",
    }
    seen = headers_of(running.client.get("/t/acme/", headers=forged).json())
    assert not any("evil" in value or "6.6.6.6" in value for value in seen.values())
    assert seen["x-kept"] == "yes"
    by_host = headers_of(running.client.get("/", headers={**forged, "Host": "acme.fleet.test"}).json())
    assert "x-forwarded-prefix" not in by_host


@pytest.mark.parametrize(
    "path",
    ["/t/nobody/", "/t/../", "/t/%2e%2e/", "/t/ACME/", "/t/acme%2f/x", "/t/%61cme/", "/t//acme/", "/t/acme../x",
     "/t/acme%00/", "/t/acme;x/", "/t/acme%20/", "/t/hold/", "/t/-/", "/t/in_flight/", "/t/" + "a" * 3000 + "/"],
)  # fmt: skip
def test_a_name_that_is_not_exactly_a_tenants_is_unknown(running: Running, acme: Upstream, path: str) -> None:
    answer = raw(running, path)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in answer


def test_dots_after_the_prefix_stay_with_the_tenant_named(running: Running, acme: Upstream, beta: Upstream) -> None:
    assert b'"name":"acme","path":"/../../t/beta/x"' in raw(running, "/t/acme/../../t/beta/x")
    assert b'"name":"acme","path":"/%2e%2e/%2e%2e/t/beta"' in raw(running, "/t/acme/%2e%2e/%2e%2e/t/beta")


def test_an_unknown_tenant_is_named_in_a_problem_document(running: Running) -> None:
    answer = running.client.get('/t/no"such/x')
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["type"], document["retryable"]) == ("urn:fleet:unknown_tenant", False)
    assert running.client.get("/t/nosuch/x").json()["tenant"] == "nosuch"
    assert running.client.get("/elsewhere").json()["type"] == "urn:fleet:not_found"


def test_a_tenant_that_is_not_up_is_503_with_its_reason(running: Running, acme: Upstream) -> None:
    running.gateway.unroute("acme", "restoring")
    answer = running.client.get("/t/acme/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    document = answer.json()
    assert (document["reason"], document["tenant"], document["retryable"]) == ("restoring", "acme", True)
    running.gateway.forget("acme")
    assert running.client.get("/t/acme/").status_code == 404
    running.gateway.route("acme", Route(acme.address))
    assert running.client.get("/t/acme/").status_code == 200


def test_a_server_that_is_away_is_503_and_asks_for_another_try(running: Running, acme: Upstream) -> None:
    acme.stop()
    answer = running.client.get("/t/acme/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["tenant"] == "acme"


def test_a_guarded_tenant_asks_for_its_token_and_keeps_it_from_the_server(running: Running, acme: Upstream) -> None:
    running.gateway.route("acme", Route(acme.address, TOKEN_SHA256))
    for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN_SHA256}", "", f"Bearer {TOKEN}x"):
        denied = running.client.get("/t/acme/", headers={"Authorization": wrong} if wrong else {})
        assert denied.status_code == 401
        assert denied.headers["www-authenticate"] == 'Bearer realm="acme"'
        assert denied.json()["tenant"] == "acme"
    seen = running.client.get("/t/acme/", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert "authorization" not in headers_of(seen)
    assert running.client.get("/", headers={"Host": "acme.fleet.test"}).status_code == 401
    assert TOKEN not in running.process.output()


def test_an_open_tenant_sees_the_authorization_that_is_its_own(running: Running, acme: Upstream) -> None:
    seen = running.client.get("/t/acme/", headers={"Authorization": "Bearer own"}).json()
    assert headers_of(seen)["authorization"] == "Bearer own"


def test_kept_connections_never_lead_to_another_tenant(running: Running, acme: Upstream, beta: Upstream) -> None:
    ports: dict[str, set[int]] = {"acme": set(), "beta": set()}
    for _ in range(50):
        for name in ("acme", "beta"):
            seen = running.client.get(f"/t/{name}/").json()
            assert seen["name"] == name
            ports[name].add(seen["client_port"])
    assert all(len(used) < 10 for used in ports.values())


def test_an_address_with_a_new_owner_is_taken_from_the_old_one(running: Running, acme: Upstream) -> None:
    running.gateway.route("beta", Route(acme.address))
    assert running.client.get("/t/beta/").status_code == 200
    assert running.client.get("/t/acme/").status_code == 503


def test_the_gateway_says_that_it_is_alive(running: Running) -> None:
    assert running.client.get("/healthz").text == "ok"


def test_it_listens_on_loopback_of_ipv6_and_routes_there(folder: Path) -> None:
    """Both sides: the gateway's own address, and a tenant's."""
    port = free_port()
    gateway = HaproxyGateway(GatewayConfig(f"[::1]:{port}"), HostProcess(folder), folder, UID)
    with upstream("six", host="::1") as six:
        try:
            gateway.ensure()
            gateway.route("six", Route(six.address))
            assert httpx.get(f"http://[::1]:{port}/t/six/").json()["name"] == "six"
        finally:
            gateway.stop()


def raw(running: Running, path: str) -> bytes:
    """One request whose path no client library has tidied."""
    with socket.create_connection(("127.0.0.1", running.port), 60) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    return answer
