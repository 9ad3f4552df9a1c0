"""The gateway in its container: what it may not do, and that it comes back with its routes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from node.agent.gateway.config import GatewayConfig
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.gateway.process import GatewayProcess
from node.agent.ports import Route
from node.agent.runtime.gateway_container import GatewayContainer
from tests.integration.gateway.parts import UID, Upstream, free_port, upstream

pytestmark = pytest.mark.engine
IMAGE = "fleet/gateway:latest"


@pytest.fixture
def client(images: str, docker_client: docker.DockerClient) -> docker.DockerClient:
    return docker_client


@pytest.fixture
def server() -> Iterator[Upstream]:
    with upstream("acme") as server:
        yield server


def test_it_serves_confined_and_comes_back_with_its_routes(
    client: docker.DockerClient, folder: Path, server: Upstream
) -> None:
    port = free_port()
    container = GatewayContainer(client, f"test-{uuid.uuid4().hex[:8]}", IMAGE, folder, UID)
    process: GatewayProcess = container
    gateway = HaproxyGateway(GatewayConfig(f"127.0.0.1:{port}"), process, folder, UID)
    url = f"http://127.0.0.1:{port}/t/acme/"
    try:
        gateway.ensure()
        gateway.route("acme", Route(server.address))
        assert httpx.get(url, timeout=60).json()["name"] == "acme"
        confined(client, container.name)

        client.api.kill(container.name, "SIGKILL")
        client.api.wait(container.name, timeout=120)
        assert gateway.in_flight("acme") == 0
        gateway.ensure()
        assert httpx.get(url, timeout=60).json()["name"] == "acme"

        gateway.stop()
        gateway.ensure()  # by whoever has not heard yet that the machine leaves
        assert not container.alive()
        adopted = HaproxyGateway(GatewayConfig(f"127.0.0.1:{port}"), process, folder, UID)
        adopted.ensure()
        assert httpx.get(url, timeout=60).json()["name"] == "acme"
        container.start()
        assert adopted.tenants().keys() == {"acme"}
    finally:
        container.stop()
    assert not container.alive()
    assert container.output() == ""


def confined(client: docker.DockerClient, name: str) -> None:
    """Looked at from outside, for there is hardly anything inside to look with."""
    pid = client.api.inspect_container(name)["State"]["Pid"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == [str(UID)] * 4
    assert {status[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    options = {fields[4]: fields[5].split(",") for fields in mounts}
    assert "ro" in options["/"]
    assert [p for p in options if p.endswith("/run") and "ro" not in options[p]]
    assert Path(f"/proc/{pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    assert "freezer:/fleet" not in Path(f"/proc/{pid}/cgroup").read_text()
