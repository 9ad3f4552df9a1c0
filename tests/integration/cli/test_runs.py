"""The commands about a tenant's runs on a real worker, behind a proxy that loses answers."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.cli.client import Client, Target
from fleet.cli.errors import FAILED, MISSING, UNAVAILABLE, UNKNOWN, CliError
from tests.integration.worker.conftest import Worker
from tests.testbed.faulty import Mode, faulty_proxy
from tests.testbed.process import FLEET

TENANT = Path(__file__).parents[1] / "worker/tenant"


class Fleet:
    """A controller that says where the tenant is, the tenant's worker, and the proxy between it and the command."""

    def __init__(self, worker, proxy, url):
        self.worker = worker
        self.proxy = proxy
        self._env = {"PATH": os.environ["PATH"], "FLEET_CONTROLLER": url, "FLEET_TOKEN": "t"}

    def sh(self, command, code=0):
        """A command line as it is typed in a shell."""
        words = [FLEET, *shlex.split(command)[1:]]
        done = subprocess.run(words, env=self._env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, done.stderr
        return done

    def runs(self):
        return self.worker.get("/v1/runs").json()["runs"]

    def signals(self, run_id):
        return [e for e in self.worker.history(run_id) if e["kind"] == "signal_received"]


class _Controller(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        view = {"tenant": "acme", "state": "running", "url": self.server.url, "spec": {"access": "open"}}
        body = json.dumps(view).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    worker = Worker(tmp_path_factory.mktemp("runs"), TENANT).start()
    try:
        with (
            faulty_proxy(worker.client.base_url.port) as proxy,
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Controller) as controller,
        ):
            controller.url = f"http://127.0.0.1:{proxy.port}"
            threading.Thread(target=controller.serve_forever, daemon=True).start()
            yield Fleet(worker, proxy, f"http://127.0.0.1:{controller.server_port}")
            controller.shutdown()
    finally:
        worker.kill()


def command_in(text):
    """The command that an error names."""
    return re.search(r"to ask for the same again: (fleet .*)", text)[1]


@pytest.mark.parametrize("wait", ["", " --wait"])
def test_a_run_whose_answer_is_lost_is_the_same_run_when_the_command_that_is_named_is_typed(fleet, wait):
    fleet.proxy.fail(Mode.LOST_REPLY, method="POST", key="runs", times=1)
    before = len(fleet.runs())
    lost = fleet.sh(f"fleet run acme total --input '[1, 2]'{wait}", UNKNOWN)
    assert "safe to repeat" not in lost.stderr
    again = command_in(lost.stderr)
    assert again.startswith(f"fleet run acme total --input '[1, 2]'{wait} --id ")
    fleet.sh(again)
    (newest, *others) = fleet.runs()
    assert (len(others), newest["id"]) == (before, again.split()[-1])


def test_a_signal_whose_answer_is_lost_comes_once_when_the_command_that_is_named_is_typed(fleet):
    fleet.sh("fleet run acme approval --id lost-signal")
    fleet.proxy.fail(Mode.LOST_REPLY, method="POST", key="signals", times=1)
    lost = fleet.sh("fleet signal -o json acme lost-signal other -- -5", UNKNOWN)
    again = command_in(lost.stderr)
    assert again == command_in(json.loads(lost.stdout)["detail"])
    fleet.sh(again)
    (found,) = fleet.signals("lost-signal")
    assert found["body"]["payload"] == -5
    fleet.sh("fleet signal acme lost-signal other 5")
    assert len(fleet.signals("lost-signal")) == 2


def test_an_id_that_is_given_stays_as_it_is(fleet):
    fleet.proxy.fail(Mode.LOST_REPLY, method="POST", key="runs", times=1)
    lost = fleet.sh("fleet run acme approval --id mine -o name", UNKNOWN)
    assert command_in(lost.stderr) == "fleet run acme approval --id mine -o name"
    assert fleet.sh(command_in(lost.stderr)).stdout == "mine\n"


def test_an_id_is_made_where_none_is_given(fleet):
    made = fleet.sh("fleet run acme approval -o name").stdout.strip()
    assert re.fullmatch("[0-9a-f]{20}", made)
    assert json.loads(fleet.sh(f"fleet history acme {made} -o json").stdout)[0]["seq"] == 1


def test_a_run_that_ended_badly_is_a_problem_with_the_run_in_it_and_says_where_to_look(fleet):
    ended = fleet.sh("fleet run acme failing --id bad --wait -o json", FAILED)
    problem = json.loads(ended.stdout)
    assert (problem["type"], problem["tenant"], problem["run"]["state"]) == ("urn:fleet:error", "acme", "failed")
    assert problem["retryable"] is False
    assert "fleet history acme bad" in ended.stderr


def test_a_server_that_does_not_answer_is_not_called_the_controller(fleet):
    fleet.proxy.fail(Mode.REFUSE)
    try:
        refused = fleet.sh("fleet runs acme", UNAVAILABLE)
    finally:
        fleet.proxy.heal()
    assert "the server of acme" in refused.stderr
    assert "fleet status acme" in refused.stderr
    assert "controller" not in refused.stderr


def test_an_answer_that_breaks_off_leaves_a_write_in_doubt_and_a_read_not():
    with stranger(b"{", length=100) as url:
        client = Client(Target(url, ""))
        for method, code, said in (("POST", UNKNOWN, "it is safe to repeat"), ("GET", UNAVAILABLE, "try again")):
            with pytest.raises(CliError, match=f"the controller at .* went away .*{said}") as e:
                client.call(method, "/v1/tenants")
            assert e.value.code == code


def test_what_is_no_workers_answer_is_told_of_its_tenant():
    with stranger(b"<html>") as url:
        client = Client(Target(url, "", None, "the server of acme", "look at acme"))
        with pytest.raises(CliError, match=r"the server of acme at .* \(404, not JSON\); look at acme") as e:
            client.call("GET", "/v1/runs")
        assert e.value.code == FAILED
    with (
        stranger(b"") as url,
        pytest.raises(CliError, match="the server of acme answered 404") as e,
    ):
        Client(Target(url, "", None, "the server of acme")).call("GET", "/v1/runs")
    assert e.value.code == MISSING


@contextmanager
def stranger(body, length=None):
    """A server that answers everything with 404 and this; answers its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as server:
        server.body, server.length = body, len(body) if length is None else length
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404)
        self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815 - the name that http.server asks for

    def log_message(self, *_):
        pass
