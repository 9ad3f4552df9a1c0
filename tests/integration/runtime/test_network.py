"""Whom a tenant can reach: nobody on this machine, and without egress nobody at all."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.integration.runtime.conftest import Bench

pytestmark = pytest.mark.engine

SERVE = """
import http.server
http.server.HTTPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
KNOCK = """
import socket, sys
def knock(what, host, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, kind); s.settimeout(1.5)
    try:
        s.connect((host, port))
        if kind == socket.SOCK_DGRAM:
            s.send(b'hello'); s.recv(10)
        print(what, 'REACHED')
    except OSError as e:
        print(what, 'no')
"""


@contextmanager
def listening(address: str) -> Iterator[tuple[int, list[bytes]]]:
    """A TCP and a UDP service of this host at one port, which answers whoever asks."""
    heard: list[bytes] = []
    with closing(socket.socket()) as tcp, closing(socket.socket(type=socket.SOCK_DGRAM)) as udp:
        tcp.bind((address, 0))
        tcp.listen()
        port = tcp.getsockname()[1]
        udp.bind((address, port))

        def answer() -> None:
            try:
                while True:
                    data, sender = udp.recvfrom(100)
                    heard.append(data)
                    udp.sendto(data, sender)
            except OSError:
                return

        threading.Thread(target=answer, daemon=True).start()
        yield port, heard


def fetch(address: str) -> bytes:
    """What a worker answers to this host."""
    with closing(socket.create_connection((address, 8080), timeout=60)) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return s.recv(100)


def until_serving(address: str) -> None:
    for _ in range(100):
        try:
            fetch(address)
        except OSError:
            threading.Event().wait(0.1)
        else:
            return
    raise AssertionError(f"{address} does not serve")


@pytest.mark.parametrize("egress", [False, True])
def test_the_host_reaches_a_worker_and_not_the_other_way_round(bench: Bench, egress: bool) -> None:
    server = bench.run(bench.worker("beta", SERVE, egress=egress))
    until_serving(server.address)
    gateway = server.address.rsplit(".", 1)[0] + ".1"
    with listening("0.0.0.0") as (port, heard):  # noqa: S104 - in the tests' own network
        addresses = [gateway, "10.213.0.1", *_own_addresses()]
        code = KNOCK + "".join(
            f"knock('{a}', '{a}', {port})\nknock('{a}/udp', '{a}', {port}, socket.SOCK_DGRAM)\n" for a in addresses
        )
        said = bench.says(bench.worker("acme", code, egress=egress))
    assert len(said) == 2 * len(addresses)
    assert not [line for line in said if "REACHED" in line]
    assert not heard


@pytest.mark.parametrize(("one", "other"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_tenant_does_not_reach_another_on_either_network(bench: Bench, one: bool, other: bool) -> None:
    server = bench.run(bench.worker("beta", SERVE, egress=other))
    until_serving(server.address)
    code = f"{KNOCK}\nknock('neighbour', '{server.address}', 8080)"
    assert bench.says(bench.worker("acme", code, egress=one)) == ["neighbour no"]


@pytest.fixture
def metadata_service() -> Iterator[None]:
    """What a cloud machine has: something that answers at 169.254.169.254, here on an interface beyond the host."""
    commands = [
        "ip netns add meta",
        "ip link add meta0 type veth peer name meta1 netns meta",
        "ip addr add 169.254.0.1/16 dev meta0",
        "ip link set meta0 up",
        "ip -n meta addr add 169.254.169.254/16 dev meta1",
        "ip -n meta link set meta1 up",
        "ip -n meta route add default via 169.254.0.1",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True)
    server = subprocess.Popen(
        ["nsenter", "--net=/var/run/netns/meta", "python3", "-m", "http.server", "80"], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with closing(socket.socket()) as s:
                if s.connect_ex(("169.254.169.254", 80)) == 0:
                    break
            threading.Event().wait(0.1)
        yield
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "link", "del", "meta0"], check=False)
        subprocess.run(["ip", "netns", "del", "meta"], check=False)


@pytest.mark.parametrize("egress", [False, True])
def test_the_machines_metadata_service_stays_out_of_reach(bench: Bench, metadata_service: None, egress: bool) -> None:
    code = f"{KNOCK}\nknock('metadata', '169.254.169.254', 80)"
    assert bench.says(bench.worker("acme", code, egress=egress)) == ["metadata no"]


@pytest.fixture
def internet() -> Iterator[str]:
    """A host beyond this one, that answers at an address which is not ours."""
    commands = [
        "ip netns add far",
        "ip link add far0 type veth peer name far1 netns far",
        "ip addr add 198.51.100.1/24 dev far0",
        "ip link set far0 up",
        "ip -n far addr add 198.51.100.9/24 dev far1",
        "ip -n far link set far1 up",
        "ip -n far route add default via 198.51.100.1",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True)
    server = subprocess.Popen(
        ["nsenter", "--net=/var/run/netns/far", "python3", "-m", "http.server", "8080"], stderr=subprocess.DEVNULL
    )
    try:
        until_serving("198.51.100.9")
        yield "198.51.100.9"
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "link", "del", "far0"], check=False)
        subprocess.run(["ip", "netns", "del", "far"], check=False)


def test_the_way_out_is_a_switch(bench: Bench, internet: str) -> None:
    code = f"{KNOCK}\nknock('far', '{internet}', 8080)"
    assert bench.says(bench.worker("acme", code, egress=True)) == ["far REACHED"]
    assert bench.says(bench.worker("acme", code, egress=False)) == ["far no"]


def test_a_closed_tenants_look_ups_reach_no_name_server(bench: Bench) -> None:
    code = """
import socket
socket.setdefaulttimeout(5)
print([line for line in open('/etc/resolv.conf') if line.startswith('nameserver')])
try: print(socket.getaddrinfo('secret-bytes.example.com', 80))
except OSError as e: print('no name', type(e).__name__)
"""
    said = bench.says(bench.worker("acme", code))
    assert said[0] == "['nameserver 127.0.0.11\\n']"
    assert said[1] == "no name gaierror"


def test_the_rules_come_back_when_somebody_has_flushed_them(bench: Bench) -> None:
    subprocess.run(["iptables", "-t", "mangle", "-F"], check=True)
    subprocess.run(["iptables", "-t", "mangle", "-X"], check=True)
    bench.runtime.ensure()
    server = bench.run(bench.worker("beta", SERVE, egress=True))
    until_serving(server.address)
    with listening("0.0.0.0") as (port, _):  # noqa: S104 - in the tests' own network
        gateway = server.address.rsplit(".", 1)[0] + ".1"
        code = f"{KNOCK}\nknock('host', '{gateway}', {port})"
        assert bench.says(bench.worker("acme", code, egress=True)) == ["host no"]


def test_ensuring_twice_adds_no_rule_and_tearing_down_leaves_none(bench: Bench) -> None:
    def rules() -> list[str]:
        return subprocess.run(
            ["iptables", "-t", "mangle", "-S"], check=True, capture_output=True, text=True
        ).stdout.splitlines()

    before = rules()
    assert [line for line in before if "-j FLEET-" in line]
    bench.runtime.ensure()
    assert rules() == before
    bench.runtime.teardown()
    assert not [line for line in rules() if "FLEET-" in line]


def _own_addresses() -> list[str]:
    text = subprocess.run(["ip", "-4", "-o", "addr"], check=True, capture_output=True, text=True).stdout
    found = [line.split()[3].split("/")[0] for line in text.splitlines()]
    return [address for address in found if not address.startswith("127.")]
