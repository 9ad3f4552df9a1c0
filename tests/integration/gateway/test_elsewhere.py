"""Any node's gateway reaches any tenant: found by the records, passed on once, followed when it moves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from node.agent import finder
from node.agent.gateway.passing import STRANGERS_IN_10_S
from node.agent.gateway.table import Peer
from tests.integration.gateway.nodes import KEY, Nodes, StandIn, several
from tests.integration.gateway.parts import Upstream, until_open, upstream
from tests.integration.gateway.test_routing import TOKEN, TOKEN_SHA256, headers_of
from tests.integration.gateway.test_tls import issue


@pytest.fixture
def nodes(folder: Path) -> Iterator[Nodes]:
    if shutil.which("haproxy") is None or os.geteuid() != 0:
        pytest.skip("needs haproxy and root: apt-get install haproxy")
    folder.mkdir()
    with several(folder) as nodes:
        yield nodes


@pytest.fixture
def here(nodes: Nodes) -> StandIn:
    return nodes.at("here")


@pytest.fixture
def there(nodes: Nodes) -> StandIn:
    return nodes.at("there")


@pytest.fixture
def acme() -> Iterator[Upstream]:
    with upstream("acme") as server:
        yield server


def test_a_tenant_of_another_node_answers_by_path_and_by_host(here: StandIn, there: StandIn, acme: Upstream) -> None:
    there.has(acme)
    seen = here.client.get("/t/acme/some//thing/?q=%2F&x").json()
    assert (seen["name"], seen["path"], seen["query"]) == ("acme", "/some//thing/", "q=%2F&x")
    assert headers_of(seen)["x-forwarded-prefix"] == "/t/acme"
    assert headers_of(seen)["x-forwarded-for"] == "127.0.0.1"
    assert headers_of(seen)["x-forwarded-host"] == f"127.0.0.1:{here.port}"
    seen = here.client.get("/t/beta/x", headers={"Host": "acme.fleet.test"}).json()
    assert (seen["name"], seen["path"]) == ("acme", "/t/beta/x")
    assert "x-forwarded-prefix" not in headers_of(seen)
    assert not any(name.startswith("x-fleet") for name in headers_of(seen))
    assert here.client.get("/t/acme").status_code == 308


def test_what_a_client_says_about_gateways_means_nothing(here: StandIn, there: StandIn, acme: Upstream) -> None:
    there.has(acme)
    with upstream("beta") as beta:
        here.has(beta)
        forged = {"X-Fleet-Key": "0" * 64, "X-Fleet-Tenant": "beta", "X-Fleet-Via": "x", "X_Fleet_Tenant": "beta"}
        seen = here.client.get("/t/acme/x", headers={**forged, "X-Forwarded-For": "6.6.6.6"}).json()
        assert (seen["name"], seen["path"]) == ("acme", "/x")
        assert headers_of(seen)["x-forwarded-for"] == "127.0.0.1"
        assert not any(name.replace("_", "-").startswith("x-fleet") for name in headers_of(seen))


def test_a_request_is_passed_on_once_however_wrong_the_records_are(here: StandIn, there: StandIn) -> None:
    """Each believes that the other has it; and a node that is said to be oneself is not asked."""
    here.nodes.bucket.owner("acme", "there")
    there.gateway.reach("acme", Peer("127.0.0.1", here.port))
    answer = here.client.get("/t/acme/")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fleet:moved")
    assert "x-fleet-not-here" not in answer.headers
    here.nodes.bucket.lease("mirror", here.url)
    here.nodes.bucket.owner("beta", "mirror")
    assert here.client.get("/t/beta/").json()["reason"] == "no_gateway"


def test_a_peer_hears_that_the_tenant_is_not_here_and_nobody_else_does(here: StandIn, there: StandIn) -> None:
    asked, before = {"X-Fleet-Key": KEY, "X-Fleet-Tenant": "acme"}, there.nodes.bucket.store.reads
    answer = there.client.get("/x", headers=asked)
    assert (answer.status_code, answer.headers["x-fleet-not-here"]) == (503, "1")
    assert there.nodes.bucket.store.reads == before
    assert there.client.get("/t/acme/x").status_code == 404


def test_the_token_is_checked_where_the_tenant_is(here: StandIn, there: StandIn, acme: Upstream) -> None:
    there.has(acme, TOKEN_SHA256)
    assert here.client.get("/t/acme/").status_code == 401
    assert here.client.get("/t/acme/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    seen = here.client.get("/t/acme/", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert "authorization" not in headers_of(seen)
    there.has(acme)
    seen = here.client.get("/t/acme/", headers={"Authorization": "Bearer own"}).json()
    assert headers_of(seen)["authorization"] == "Bearer own"


def test_streams_uploads_and_websockets_go_through_both(here: StandIn, there: StandIn, acme: Upstream) -> None:
    there.has(acme)
    with here.client.stream("GET", "/t/acme/events") as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b"data: first\n\n"
        assert there.gateway.in_flight("acme") == 1
        acme.gate.set()
        assert b"".join(pieces) == b"data: second\n\n"
    body = (b"x" * 65536 for _ in range(200))
    assert here.client.put("/t/acme/count", content=body).json() == {"size": 200 * 65536}
    for url in (f"ws://127.0.0.1:{here.port}/t/acme/echo", f"ws://acme.fleet.test:{here.port}/echo"):
        with socket.create_connection(("127.0.0.1", here.port)) as s, connect(url, sock=s) as ws:
            for i in range(20):
                ws.send(f"{i}")
                assert ws.recv(30) == f"acme: {i}"
            assert here.gateway.used() == {"acme": here.gateway.used()["acme"]}


def test_a_moved_tenant_is_followed_though_nobody_told_this_node(here: StandIn, there: StandIn, acme: Upstream) -> None:
    third = here.nodes.at("third")
    there.has(acme)
    assert here.client.get("/t/acme/").status_code == 200
    there.gateway.forget("acme")
    third.has(acme, epoch=2)
    answer = here.client.get("/t/acme/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    here.until("/t/acme/", lambda r: r.status_code == 200)
    assert there.client.get("/t/acme/").status_code == 200
    assert third.client.get("/t/acme/").status_code == 200


def test_those_who_wait_where_a_tenant_left_follow_it_and_none_is_refused(
    here: StandIn, there: StandIn, acme: Upstream
) -> None:
    """A planned move as its two nodes see it, and clients that use the gateway of each; with a token, for it is checked
    at both ends."""
    right = {"Authorization": f"Bearer {TOKEN}"}
    here.has(acme, TOKEN_SHA256)
    there.client.get("/t/acme/", headers=right)
    here.gateway.hold("acme", leaving=True)
    before = there.gateway.used()["acme"]
    with ThreadPoolExecutor(8) as pool:
        urls = [here.url, there.url] * 4
        waiting = [pool.submit(httpx.post, f"{url}/t/acme/x", headers=right, timeout=60) for url in urls]
        here.until("/healthz", lambda _: there.gateway.used()["acme"] == before + 4)
        here.nodes.bucket.owner("acme", "here", "released")
        here.nodes.do(_call(here.finder.follow, "acme"))
        there.gateway.hold("acme")
        here.nodes.bucket.owner("acme", "there", "claimed", epoch=2)
        here.until("/healthz", lambda _: here.gateway.tenants()["acme"].state == "via")
        assert not any(w.done() for w in waiting)
        there.has(acme, TOKEN_SHA256, epoch=2)
        assert [w.result(60).json()["path"] for w in waiting] == ["/x"] * 8


def test_nobody_passes_without_the_token_while_its_tenant_comes_whichever_node_was_asked(
    here: StandIn, there: StandIn, acme: Upstream
) -> None:
    there.gateway.hold("acme")
    here.nodes.bucket.owner("acme", "there", "claimed")
    with ThreadPoolExecutor(4) as pool:
        shown = [{}, {"Authorization": f"Bearer {TOKEN}"}]
        waiting = [
            pool.submit(httpx.get, f"{node.url}/t/acme/", headers=h, timeout=60)
            for node in (here, there)
            for h in shown
        ]
        until_open(there.gateway, "acme", 4)
        there.has(acme, TOKEN_SHA256)
        answers = [w.result(60) for w in waiting]
    assert [a.status_code for a in answers] == [401, 200, 401, 200]
    assert all("authorization" not in headers_of(a.json()) for a in answers if a.status_code == 200)


async def _call(what: object, *args: object) -> None:
    what(*args)  # type: ignore[operator] # of this test's own: on the nodes' loop


def test_a_frozen_machine_holds_nobody_up_once_its_session_is_over(
    here: StandIn, there: StandIn, acme: Upstream
) -> None:
    """Its gateway takes connections and answers none. New requests go where the records say; old ones are cut."""
    third = here.nodes.at("third")
    there.has(acme)
    assert here.client.get("/t/acme/").status_code == 200
    os.killpg(there.process.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            hanging = pool.submit(httpx.post, f"{here.url}/t/acme/x", timeout=60)
            here.until("/healthz", lambda _: here.gateway.used()["acme"] == 2)
            third.has(acme, epoch=2)
            here.nodes.bucket.lease("there", there.url, state="gone")
            answer = hanging.result(60)
            assert (answer.status_code, answer.json()["retryable"]) == (502, True)
        assert here.until("/t/acme/", lambda r: r.status_code == 200).json()["name"] == "acme"
    finally:
        os.killpg(there.process.pid, signal.SIGCONT)


@pytest.mark.long
def test_a_dead_gateway_is_a_quick_503_and_followed_at_once(here: StandIn, there: StandIn, acme: Upstream) -> None:
    third = here.nodes.at("third")
    there.has(acme)
    assert here.client.get("/t/acme/").status_code == 200
    there.process.kill()
    answer = httpx.post(f"{here.url}/t/acme/", timeout=60)  # on a connection of its own: on an old one HAProxy hangs up
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    third.has(acme, epoch=2)
    here.until("/t/acme/", lambda r: r.status_code == 200)


@pytest.mark.long
def test_a_session_that_is_over_without_an_heir_is_a_503_that_says_so(here: StandIn, there: StandIn) -> None:
    there.nodes.bucket.owner("acme", "there")
    there.nodes.bucket.lease("there", there.url, session=2)
    answer = here.client.get("/t/acme/")
    assert (answer.status_code, answer.json()["reason"]) == (503, "failover")


def test_a_tenant_that_is_nowhere_up_says_in_what_state_it_is(nodes: Nodes, here: StandIn) -> None:
    nodes.bucket.owner("acme", "there", "released")
    answer = here.client.get("/t/acme/")
    assert (answer.status_code, answer.json()["reason"]) == (503, "released")


@pytest.mark.long
def test_what_this_node_says_of_a_tenant_is_not_overruled(here: StandIn, there: StandIn, acme: Upstream) -> None:
    there.has(acme)
    here.gateway.unroute("acme", "claiming")
    assert not here.gateway.reach("acme", Peer("127.0.0.1", there.port))
    here.gateway.lose("acme")
    assert here.client.get("/t/acme/").json()["reason"] == "claiming"


def test_unknown_names_without_end_cost_the_bucket_next_to_nothing(nodes: Nodes, here: StandIn) -> None:
    """And tenants that there are are still found meanwhile."""
    store = nodes.bucket.store
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda i: here.client.get(f"/t/no-{i}/x").status_code, range(600)))
    assert set(codes) <= {404, 503}
    assert codes.count(404) >= 60
    assert store.reads < 100
    assert store.lists <= 2
    with upstream("acme") as acme:
        there = nodes.at("there")
        there.has(acme)
        here.nodes.do(_call(setattr, here.finder._budget, "_listed_at", None))
        other = httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), base_url=here.url)
        assert other.get("/t/acme/").status_code == 200


def test_clients_of_one_address_that_ask_without_end_for_a_tenant_that_starts_elsewhere_find_it(
    here: StandIn, there: StandIn, acme: Upstream
) -> None:
    """As many as a load balancer passes on: it is no name that nobody has."""
    there.nodes.bucket.owner("acme", "there")
    there.nodes.bucket.lease("there", there.url, session=2)
    for _ in range(2 * STRANGERS_IN_10_S):
        answer = here.client.get("/t/acme/")
        assert (answer.status_code, answer.json().get("reason")) == (503, "failover")
    there.has(acme, epoch=2)
    here.until("/t/acme/", lambda r: r.status_code == 200)


@pytest.mark.long
def test_an_agent_that_is_away_makes_no_tenant_unknown(nodes: Nodes, here: StandIn, acme: Upstream) -> None:
    there = nodes.at("there")
    there.has(acme)
    assert here.client.get("/t/acme/").status_code == 200
    here.nodes.do(here.door.close())
    answer = here.client.get("/t/beta/")
    assert (answer.status_code, answer.json()["reason"]) == (503, "agent_away")
    assert here.client.get("/t/acme/").status_code == 200


@pytest.mark.long
def test_a_tenant_that_nobody_uses_is_forgotten_here(
    here: StandIn, there: StandIn, acme: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "USED_EVERY_S", 0.0)
    monkeypatch.setattr(here.gateway, "used", dict)
    there.has(acme)
    assert here.client.get("/t/acme/").status_code == 200
    here.until("/healthz", lambda _: "acme" not in here.gateway.tenants())
    assert here.client.get("/t/acme/").status_code == 200


def test_between_gateways_certificates_are_checked(nodes: Nodes, folder: Path, acme: Upstream) -> None:
    """By the name that the lease gives: one that no known authority vouches for gets no request."""
    made = {}
    for name in ("known", "stranger"):
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        for path, content in zip((cert, key), issue(name), strict=True):
            path.write_bytes(content)
        made[name] = {"tls_cert": cert, "tls_key": key, "host": "localhost"}
    here = nodes.at("here", tls_ca=folder / "known.crt")
    there = nodes.at("there", **made["known"])
    there.has(acme)
    assert here.client.get("/t/acme/").json()["name"] == "acme"
    stranger = nodes.at("stranger", **made["stranger"])
    with upstream("beta") as beta:
        stranger.has(beta)
        assert here.client.get("/t/beta/").status_code == 503
    nodes.bucket.lease("liar", f"https://127.0.0.1:{there.port}")
    nodes.bucket.owner("gamma", "liar")
    assert here.client.get("/t/gamma/").status_code == 503
