"""A worker's planned restart, seen by those who never stop asking; and HAProxy's own end, seen by the same."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from node.agent.gateway.config import GatewayConfig
from node.agent.gateway.errors import GatewayFailed, GatewayMisconfigured
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.gateway.table import Peer
from node.agent.ports import Route
from tests.integration.gateway.conftest import Running
from tests.integration.gateway.parts import UID, HostProcess, Upstream, until_open, upstream
from tests.integration.gateway.test_routing import TOKEN, TOKEN_SHA256, headers_of


class Load:
    """Clients that ask one after the other until told to stop, every answer counted. POST: nothing may repeat it."""

    def __init__(self, url: str, path: str, clients: int = 8) -> None:
        self.answers: Counter[str] = Counter()
        self._stop = threading.Event()
        self._asked = threading.Semaphore(0)
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._ask, url, path, kept=i % 2 == 0) for i in range(clients)]

    def _ask(self, url: str, path: str, *, kept: bool) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(path, headers={} if kept else {"Connection": "close"})
                    outcome = answer.json()["name"] if answer.status_code == 200 else str(answer.status_code)
                except httpx.HTTPError as e:
                    outcome = repr(e)
                self.answers[outcome] += 1
                self._asked.release()

    def more(self, count: int) -> None:
        """Wait until that many further answers came."""
        for _ in range(count):
            assert self._asked.acquire(timeout=60)

    def stop(self) -> Counter[str]:
        self._stop.set()
        for done in self._running:
            done.result(60)
        self._pool.shutdown()
        return self.answers


def drained(running: Running, tenant: str) -> None:
    for _ in range(6000):
        if running.gateway.in_flight(tenant) == 0:
            return
        threading.Event().wait(0.005)
    raise AssertionError("does not drain")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_no_request_is_lost_while_a_worker_is_restarted_again_and_again(running: Running, acme: Upstream) -> None:
    load = Load(running.url, "/t/acme/")
    server = acme
    for round_ in range(5):
        load.more(100)
        running.gateway.hold("acme")
        drained(running, "acme")
        server.stop()
        server = Upstream(f"acme-{round_}", port=acme.port if round_ % 2 else None).start()
        running.gateway.route("acme", Route(server.address))
    load.more(100)
    answers = load.stop()
    server.stop()
    assert set(answers) == {"acme", *(f"acme-{i}" for i in range(5))}
    assert sum(answers.values()) > 500


def test_a_hold_answers_when_what_went_to_the_old_route_is_counted(running: Running, acme: Upstream) -> None:
    """Every request that was let through is in flight once hold has answered: none shows up later."""
    load = Load(running.url, "/t/acme/", clients=4)
    for _ in range(30):
        load.more(20)  # open for longer than it is held, or one client may find it held each time it looks
        running.gateway.hold("acme")
        seen = [running.gateway.in_flight("acme") for _ in range(4)]
        assert seen == sorted(seen, reverse=True)
        running.gateway.route("acme", Route(acme.address))
    assert set(load.stop()) == {"acme"}


def test_those_who_wait_are_not_in_flight_and_stay_guarded(running: Running, acme: Upstream) -> None:
    running.gateway.route("acme", Route(acme.address, "0" * 64))
    running.gateway.hold("acme")
    assert running.client.get("/t/acme/").status_code == 401
    running.gateway.route("acme", Route(acme.address))
    running.gateway.hold("acme")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.get, f"{running.url}/t/acme/", timeout=60)
        for _ in range(50):
            assert running.gateway.in_flight("acme") == 0
        assert not waiting.done()
        running.gateway.unroute("acme", "failed")
        answer = waiting.result(60)
    assert (answer.status_code, answer.json()["reason"]) == (503, "failed")


def test_who_waited_for_a_tenant_that_comes_needs_its_token_though_it_was_not_known(
    running: Running, acme: Upstream
) -> None:
    running.gateway.hold("acme")
    shown = [{}, bearer("wrong"), bearer(TOKEN)]
    with ThreadPoolExecutor(len(shown)) as pool:
        waiting = [pool.submit(httpx.get, f"{running.url}/t/acme/", headers=h, timeout=60) for h in shown]
        until_open(running.gateway, "acme", len(shown))
        running.gateway.route("acme", Route(acme.address, TOKEN_SHA256))
        answers = [w.result(60) for w in waiting]
    assert [a.status_code for a in answers] == [401, 401, 200]
    assert "authorization" not in headers_of(answers[-1].json())


@pytest.mark.parametrize("after", [None, "0" * 64])
def test_who_waited_with_a_token_is_judged_by_what_is_asked_for_then(
    running: Running, acme: Upstream, after: str | None
) -> None:
    running.gateway.route("acme", Route(acme.address, TOKEN_SHA256))
    running.gateway.hold("acme")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.get, f"{running.url}/t/acme/", headers=bearer(TOKEN), timeout=60)
        until_open(running.gateway, "acme", 1)
        running.gateway.route("acme", Route(acme.address, after))
        answer = waiting.result(60)
    if after:
        assert answer.status_code == 401
    else:
        assert headers_of(answer.json())["authorization"] == f"Bearer {TOKEN}"


def test_a_wait_without_end_is_answered_with_another_try(running: Running, acme: Upstream) -> None:
    brief = GatewayConfig(running.config.listen, running.config.domain, hold_s=2)
    gateway = HaproxyGateway(brief, running.process, running.folder, UID)
    gateway.ensure()
    gateway.hold("acme")
    answer = running.client.get("/t/acme/")
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "restarting", "1")


def test_a_killed_haproxy_comes_back_with_every_route(running: Running, acme: Upstream, beta: Upstream) -> None:
    running.gateway.unroute("down", "restoring")
    running.process.kill()
    assert running.gateway.in_flight("acme") == 0
    running.gateway.ensure()
    assert running.client.get("/t/acme/").json()["name"] == "acme"
    assert running.client.get("/t/beta/").json()["name"] == "beta"
    assert running.client.get("/t/down/").json()["reason"] == "restoring"


def test_a_route_that_is_given_while_haproxy_is_dead_is_there_after(running: Running, acme: Upstream) -> None:
    running.process.kill()
    running.gateway.route("beta", Route(acme.address))
    assert running.client.get("/t/beta/").status_code == 200
    assert running.client.get("/t/acme/").status_code == 503


def test_one_that_was_stopped_starts_for_nobody_and_its_next_agent_has_what_it_was_told(
    running: Running, acme: Upstream
) -> None:
    """A machine that leaves: what looks for other nodes' tenants, and walks under way, still speak to its gateway."""
    running.gateway.stop()
    running.gateway.reach("beta", Peer("127.0.0.1", 1))
    running.gateway.route("gamma", Route("127.0.0.1:2"))
    running.gateway.hold("gamma")
    running.gateway.unroute("acme", "stopping")
    running.gateway.lose("beta")
    running.gateway.forget("gamma")
    assert not running.process.alive()
    assert running.gateway.in_flight("acme") == 0
    after = HaproxyGateway(running.config, running.process, running.folder, UID)
    assert {tenant: entry.reason for tenant, entry in after.tenants().items()} == {"acme": "stopping"}


def test_another_agent_takes_over_without_touching_haproxy(running: Running, acme: Upstream) -> None:
    before = running.gateway.tenants()
    with httpx.stream("GET", f"{running.url}/t/acme/events", timeout=60) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        second = HaproxyGateway(running.config, running.process, running.folder, UID)
        second.ensure()
        assert second.tenants() == before
        assert second.in_flight("acme") == 1
        acme.gate.set()
        assert b"".join(pieces) == b"data: second\n\n"


def test_routes_that_haproxy_missed_are_told_again(running: Running, acme: Upstream) -> None:
    """An agent that died between the file and the command."""
    text = running.gateway._files.routes.read_text()
    running.gateway._files.routes.write_text(text + text.replace("acme ", "beta "))
    second = HaproxyGateway(running.config, running.process, running.folder, UID)
    second.ensure()
    assert running.client.get("/t/beta/").json()["name"] == "acme"


def test_a_new_configuration_is_taken_over_without_losing_a_request(running: Running, acme: Upstream) -> None:
    load = Load(running.url, "/t/acme/")
    load.more(50)
    for hold_s in (6, 7, 8):
        second = HaproxyGateway(
            GatewayConfig(running.config.listen, "other.test", hold_s=hold_s), running.process, running.folder, UID
        )
        second.ensure()
        load.more(100)
    answers = load.stop()
    assert set(answers) == {"acme"}
    assert running.client.get("/", headers={"Host": "acme.other.test"}).status_code == 200


def test_what_an_older_haproxy_still_serves_is_counted_and_follows_its_routes(running: Running, acme: Upstream) -> None:
    with ThreadPoolExecutor(2) as pool:
        streaming = pool.submit(httpx.get, f"{running.url}/t/acme/wait", timeout=60)
        in_flight(running.gateway, 1)
        running.gateway.hold("held")
        waiting = pool.submit(httpx.get, f"{running.url}/t/held/x", timeout=60)
        second = HaproxyGateway(
            GatewayConfig(running.config.listen, "other.test"), running.process, running.folder, UID
        )
        second.ensure()
        assert second.in_flight("acme") == 1
        second.route("held", Route(acme.address))
        assert waiting.result(60).status_code in (200, 503)
        acme.gate.set()
        assert streaming.result(60).json()["name"] == "acme"
        in_flight(second, 0)


def in_flight(gateway: HaproxyGateway, count: int) -> None:
    for _ in range(6000):
        if gateway.in_flight("acme") == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"never {count} in flight")


def test_a_configuration_that_is_refused_leaves_the_old_one_at_work(running: Running, acme: Upstream) -> None:
    taken = GatewayConfig(acme.address, "other.test")
    second = HaproxyGateway(taken, running.process, running.folder, UID)
    for _ in range(3):
        with pytest.raises(GatewayMisconfigured, match="goes on with the old"):
            second.ensure()
        assert running.client.get("/t/acme/").json()["name"] == "acme"
    assert second._admin.processes().failed_reloads == 1
    second.unroute("acme", "stopping")
    assert running.client.get("/t/acme/").json()["reason"] == "stopping"
    third = HaproxyGateway(running.config, running.process, running.folder, UID)
    third.ensure()
    third.route("acme", Route(acme.address))
    assert running.client.get("/t/acme/").json()["name"] == "acme"


def test_one_tenant_cannot_take_all_places(running: Running, acme: Upstream, beta: Upstream) -> None:
    few = GatewayConfig(running.config.listen, running.config.domain, per_tenant=3)
    gateway = HaproxyGateway(few, running.process, running.folder, UID)
    gateway.ensure()
    with ThreadPoolExecutor(3) as pool:
        open_ones = [pool.submit(httpx.get, f"{running.url}/t/acme/wait", timeout=60) for _ in range(3)]
        in_flight(gateway, 3)
        refused = running.client.get("/t/acme/")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:fleet:too_busy")
        assert running.client.get("/t/beta/").status_code == 200
        acme.gate.set()
        assert [done.result(60).status_code for done in open_ones] == [200] * 3


def test_what_cannot_start_says_why(running: Running) -> None:
    folder = running.folder.parent / "second"
    process = HostProcess(folder)
    gateway = HaproxyGateway(running.config, process, folder, UID)
    gateway_port_taken = GatewayConfig("127.0.0.1:1")
    try:
        with pytest.raises(GatewayFailed, match=r"cannot bind|Permission denied|annot bind"):
            HaproxyGateway(gateway_port_taken, process, folder, UID).ensure()
    finally:
        process.kill()
    assert gateway.tenants() == {}


def test_many_routes_are_changed_at_once_by_many_threads(running: Running, acme: Upstream) -> None:
    names = [f"t{i}" for i in range(60)]
    with ThreadPoolExecutor(8) as pool, upstream("other") as other:
        list(pool.map(running.gateway.hold, names))
        list(pool.map(lambda n: running.gateway.unroute(n, "starting"), names))
        list(pool.map(running.gateway.forget, names[::2]))
        running.gateway.route("t1", Route(other.address))
    answers = {n: running.client.get(f"/t/{n}/").status_code for n in itertools.islice(names, 2, None)}
    assert {answers[n] for n in names[2::2]} == {404}
    assert {answers[n] for n in names[3::2]} == {503}
