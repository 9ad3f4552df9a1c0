"""What the runtime remembers beside the engine, which is asked by several tenants at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import docker
import pytest

from node.agent.ports import Volume, WorkerSpec
from node.agent.runtime import groups
from node.agent.runtime.cgroup import Cgroups
from node.agent.runtime.docker import DockerRuntime


class LateEngine:
    """Its lists are from before every container that was made; its networks have five addresses."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return []

    def inspect_image(self, name: str) -> dict[str, Any]:
        return {"Config": {}}

    def inspect_network(self, name: str) -> dict[str, Any]:
        return {"IPAM": {"Config": [{"Subnet": "10.0.0.0/29"}]}}

    def create_container_from_config(self, options: Any, name: str) -> None:
        (network,) = options["NetworkingConfig"]["EndpointsConfig"].values()
        self.made[name] = network["IPAMConfig"]["IPv4Address"]

    def remove_container(self, name: str, **_: Any) -> None:
        del self.made[name]


def worker(tenant: str) -> WorkerSpec:
    home = Path("/t") / tenant
    return WorkerSpec(
        tenant=tenant, epoch=1, session=1, generation=1, image="img", uid=1000, port=8000, memory_bytes=1 << 26,
        volume=Volume(home / "data", home / "meta", home / "run", home / "marker"), cpus=1.0, pids=64, env={},
        command=(), writable=(), app=None, secrets=None, egress=False,
    )  # fmt: skip


def test_tenants_that_are_made_at_once_never_get_one_address_and_it_is_free_when_its_container_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "is_frozen", lambda _: False)
    engine = LateEngine()
    runtime = DockerRuntime("fleet")
    runtime._client, runtime._cgroups = cast("docker.APIClient", engine), Cgroups("cgroupfs", 2)
    names = [runtime.create(worker(f"tenant-{n}")) for n in range(5)]
    assert len(set(engine.made.values())) == 5
    before = engine.made[names[0]]
    assert engine.made[runtime.create(worker("tenant-0"))] == before
    runtime.remove(names[0])
    assert engine.made[runtime.create(worker("another"))] == before
