"""Cordon and drain through the API and the command line, on machines that do what they are told."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess

import pytest

from tests.integration.controller.conftest import TOKEN
from tests.testbed.process import FLEET

TENANTS = [f"t{i}" for i in range(5)]


@pytest.fixture
def busy(pair):
    """Five tenants on n1."""
    pair.client.post("/v1/nodes/n2/cordon").raise_for_status()
    for tenant in TENANTS:
        assert pair.up(tenant).json()["node"] == "n1"
    pair.client.post("/v1/nodes/n2/uncordon").raise_for_status()
    return pair


def cli(fleet, *arguments):
    """What the command line says, and how it ends."""
    environment = {**os.environ, "FLEET_CONTROLLER": fleet.served.url, "FLEET_TOKEN": TOKEN}
    return subprocess.run([FLEET, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_drain_moves_everybody_and_shows_it(busy):
    done = cli(busy, "drain", "n1", "--at-once", "2")
    assert (done.returncode, done.stdout) == (0, "n1  draining  0 tenants\n"), done.stderr
    assert all(f"{t}: moved" in done.stderr for t in TENANTS)
    assert {busy.get(t)["node"] for t in TENANTS} == {"n2"}
    assert {busy.get(t)["state"] for t in TENANTS} == {"running"}
    wants = [(a.tenant, a.want) for a in busy.agents["n1"].assigned]
    assert all(wants.index((t, "down")) > wants.index((t, "up")) for t in TENANTS)
    again = cli(busy, "drain", "n1")
    assert again.returncode == 0


def test_on_a_terminal_a_drain_has_a_bar(busy):
    shown, terminal = pty.openpty()
    environment = {**os.environ, "FLEET_CONTROLLER": busy.served.url, "FLEET_TOKEN": TOKEN, "TERM": "xterm"}
    with subprocess.Popen([FLEET, "drain", "n1"], stdout=subprocess.DEVNULL, stderr=terminal, env=environment) as cli:
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # the end of a terminal whose other side is closed
            while more := os.read(shown, 65536):
                said += more
    os.close(shown)
    assert cli.returncode == 0
    assert b"drain n1" in said
    assert b"5/5" in said


@pytest.mark.parametrize("slow", [(), ("t0", "t3"), TENANTS], ids=["quick", "some slow", "all slow"])
def test_never_more_are_between_two_machines_than_was_said(busy, slow):
    left, arrives = busy.agents["n1"], busy.agents["n2"]
    left.step_s = arrives.step_s = 0.1
    left.behaviour = dict.fromkeys(slow, "slow")
    between = []

    def count(want):
        """As the machine itself hears who leaves: what has arrived said so before the controller could know it."""
        gone = {a.tenant for a in left.assigned if a.want == "down"}
        here = {t for t in gone if t in arrives.reports and arrives.reports[t].state == "running"}
        between.append(len(gone - here))

    left.heard = count
    busy.client.post("/v1/nodes/n1/drain", json={"at_once": 2}).raise_for_status()
    busy.until(lambda: not busy.client.get("/v1/nodes/n1").json()["leaving"], timeout_s=60)
    assert len(between) >= len(TENANTS)
    assert max(between) <= 2, between


def test_one_that_can_not_go_is_named_with_the_reason_and_stays_up(busy):
    busy.up("t1", node="n1")
    done = cli(busy, "drain", "n1")
    assert done.returncode == 1
    assert "t1: its spec asks for node n1" in done.stderr
    shown = busy.get("t1")
    assert (shown["node"], shown["state"]) == ("n1", "running")
    assert {busy.get(t)["node"] for t in TENANTS if t != "t1"} == {"n2"}


def test_without_room_elsewhere_nobody_is_taken_down(busy):
    busy.client.post("/v1/nodes/n2/cordon").raise_for_status()
    done = cli(busy, "drain", "n1", "-o", "json")
    assert done.returncode == 1
    assert "n2 is cordoned" in done.stderr
    assert json.loads(done.stdout)["tenants"] == TENANTS
    assert all(a.want == "up" for a in busy.agents["n1"].assigned)
    assert {busy.get(t)["state"] for t in TENANTS} == {"running"}


def test_a_cordoned_machine_gets_nobody_and_keeps_whom_it_has(busy):
    done = cli(busy, "cordon", "n1")
    assert (done.returncode, done.stdout) == (0, "n1  cordoned  5 tenants\n")
    assert cli(busy, "cordon", "n1").returncode == 0
    assert busy.up("new").json()["node"] == "n2"
    assert {busy.get(t)["node"] for t in TENANTS} == {"n1"}
    assert cli(busy, "uncordon", "n1").stdout == "n1  ready  5 tenants\n"


@pytest.mark.parametrize("command", ["cordon", "uncordon", "drain"])
def test_an_unknown_machine_is_no_such_thing(pair, command):
    done = cli(pair, command, "n9", "-o", "json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["type"] == "urn:fleet:not_found"


def test_a_cordon_survives_the_controller(busy):
    busy.client.post("/v1/nodes/n1/cordon").raise_for_status()
    busy.stop()
    busy.start()
    busy.until(lambda: busy.states() == ["cordoned", "ready"])


def test_a_drain_that_nobody_follows_goes_on_and_its_end_can_be_waited_for(busy):
    for agent in busy.agents.values():
        agent.step_s = 0.2
    assert cli(busy, "drain", "n1", "--at-once", "1", "--no-wait").returncode == 0
    assert cli(busy, "drain", "n1", "--at-once", "5").returncode == 0
    assert {busy.get(t)["node"] for t in TENANTS} == {"n2"}


def test_nodes_are_listed_with_zone_session_and_the_age_of_their_lease(busy):
    done = cli(busy, "nodes")
    heading, first, _ = done.stdout.splitlines()
    assert heading.split() == [
        "NODE", "STATE", "ZONE", "SESSION", "TENANTS", "MEMORY", "CPUS", "LEASE", "GATEWAY", "MESSAGE",
    ]  # fmt: skip
    assert first.split()[:5] == ["n1", "ready", "-", "1", "5"]


def test_a_body_that_is_no_number_is_bad_input(pair):
    refused = pair.client.post("/v1/nodes/n1/drain", json={"at_once": 0})
    assert (refused.status_code, refused.json()["field"]) == (422, "at_once")


def test_the_metrics_say_that_a_drain_stands_still(pair):
    pair.up("pinned", node="n1")
    stuck = 'fleet_leaving_tenants{stage="stuck"}'
    assert f"{stuck} 0.0" in pair.client.get("/metrics").text
    pair.client.post("/v1/nodes/n1/drain", json={"at_once": 1}).raise_for_status()
    assert f"{stuck} 1.0" in pair.client.get("/metrics").text
    pair.client.post("/v1/nodes/n1/uncordon").raise_for_status()
    assert f"{stuck} 0.0" in pair.client.get("/metrics").text
