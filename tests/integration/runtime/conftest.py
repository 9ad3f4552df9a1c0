"""A runtime of its own for every test, on the tests' engine: networks, rules and containers go with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node.agent.ports import Container, SidecarSpec, WorkerSpec
from node.agent.runtime.docker import DockerRuntime
from node.agent.runtime.uids import Uids
from node.agent.runtime.volumes import DiskVolumes
from tests.testbed.engine import Engine

PYTHON = "fleet-test/python:latest"


@dataclass
class Bench:
    """A node's runtime and volumes, and short ways to run something in them."""

    runtime: DockerRuntime
    volumes: DiskVolumes
    uids: Uids
    scratch: Path

    def worker(self, tenant: str, code: str, *, disk_bytes: int = 64 << 20, **changes: object) -> WorkerSpec:
        """A worker of which the command is a Python program."""
        uid = self.uids.of(tenant)
        spec = WorkerSpec(
            tenant=tenant,
            epoch=1,
            session=1,
            generation=1,
            image=PYTHON,
            uid=uid,
            volume=self.volumes.ensure(tenant, uid, disk_bytes),
            port=8080,
            memory_bytes=128 << 20,
            cpus=1.0,
            pids=64,
            command=("-c", code),
        )
        return replace(spec, **changes)  # type: ignore[arg-type] # fields by name

    def run(self, spec: WorkerSpec) -> Container:
        """Create and start."""
        return self.runtime.start(self.runtime.create(spec))

    def says(self, spec: WorkerSpec) -> list[str]:
        """Run to its end and answer what it wrote, without the times."""
        name = self.runtime.create(spec)
        self.runtime.start(name)
        lines = [line.decode().partition(" ")[2] for line in self.log(name, follow=True)]
        self.runtime.remove(name)
        return lines

    def log(self, name: str, *, follow: bool = False) -> list[bytes]:
        """The whole log."""
        return list(self.runtime.logs(name, tail=None, since=None, follow=follow))

    def ended(self, name: str) -> Container:
        """The container once it has ended; its log ends a moment before it does."""
        for _ in range(1200):
            (found,) = [c for c in self.runtime.containers() if c.name == name]
            if not found.running:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{name} does not end")

    def sidecar(self, tenant: str) -> SidecarSpec:
        """A Litestream with nothing to replicate."""
        uid = self.uids.of(tenant)
        config = self.scratch / f"{tenant}-config"
        config.mkdir()
        (config / "litestream.yml").write_text("dbs: []\n")
        return SidecarSpec(tenant, 1, 1, uid, self.volumes.ensure(tenant, uid, 64 << 20), config)


@pytest.fixture(scope="session")
def python_image(engine: Engine, images: str) -> str:
    """The worker's image with Python itself as what it runs."""
    client = engine.client()
    made = client.api.create_container("fleet/worker:latest", entrypoint=["python3"], command=[])
    client.api.commit(made["Id"], repository="fleet-test/python", tag="latest")
    client.api.remove_container(made["Id"])
    client.close()
    return PYTHON


@pytest.fixture
def runtime(engine: Engine, python_image: str) -> Iterator[DockerRuntime]:
    """A fleet of its own on the engine."""
    made = DockerRuntime(f"ft-{secrets.token_hex(4)}", engine=engine.host)
    made.ensure()
    yield made
    made.teardown()


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[DiskVolumes]:
    """Volumes in a state folder of their own."""
    made = DiskVolumes(tmp_path / "state")
    yield made
    for tenant in made.tenants():
        made.discard(tenant)


@pytest.fixture
def bench(runtime: DockerRuntime, volumes: DiskVolumes, tmp_path: Path) -> Bench:
    """Both together."""
    return Bench(runtime, volumes, Uids(tmp_path / "state"), tmp_path)
