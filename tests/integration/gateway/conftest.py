"""A gateway on loopback of its own, and two tenants behind it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from node.agent.gateway.config import GatewayConfig
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.ports import Route
from tests.integration.gateway.parts import UID, HostProcess, Upstream, free_port, upstream


@dataclass(frozen=True)
class Running:
    """A gateway with its process, its folder, its URL and a client that repeats nothing."""

    gateway: HaproxyGateway
    process: HostProcess
    folder: Path
    port: int
    client: httpx.Client
    config: GatewayConfig

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (sockets) that HAProxy's user can reach."""
    path = Path(tempfile.mkdtemp(prefix="gateway-", dir="/tmp"))
    path.chmod(0o755)
    yield path / "g"
    shutil.rmtree(path)


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    if shutil.which("haproxy") is None or os.geteuid() != 0:
        pytest.skip("needs haproxy and root: apt-get install haproxy")
    port = free_port()
    config = GatewayConfig(f"127.0.0.1:{port}", domain="fleet.test", hold_s=30)
    process = HostProcess(folder)
    gateway = HaproxyGateway(config, process, folder, UID)
    gateway.ensure()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield Running(gateway, process, folder, port, client, config)
    gateway.stop()


@pytest.fixture
def acme(running: Running) -> Iterator[Upstream]:
    with upstream("acme") as server:
        running.gateway.route("acme", Route(server.address))
        yield server


@pytest.fixture
def beta(running: Running) -> Iterator[Upstream]:
    with upstream("beta") as server:
        running.gateway.route("beta", Route(server.address))
        yield server
