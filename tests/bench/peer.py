"""The same two containers without the product: its own options for them, given to the engine by its SDK."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker

from node.agent.custody import config
from node.agent.custody.files import write_config
from node.agent.custody.values import Credentials, ReplicaTarget
from node.agent.ports import SidecarSpec, Volume
from node.agent.runtime import cgroup, containers, network
from node.agent.runtime.containers import Options, Place
from node.agent.runtime.volumes import DiskVolumes
from node.agent.workerspec import worker_spec
from node.api import Assignment
from node.bucket.spec import TenantSpec
from tests.bench.stage import Stage, wait_answer

UID = 300_000
REGION = "us-east-1"
WORKER_STOP_S = 25
SIDECAR_STOP_S = 40
_AT_ONCE = 64


@dataclass(frozen=True)
class Pair:
    """A tenant's two containers as they are about to be made: names and options. Volume and configuration are there."""

    worker: str
    sidecar: str
    worker_options: Options
    sidecar_options: Options
    port: int


class Peer:
    """Makes pairs on the stage's engine, on the fleet's own networks and in a cgroup of its own."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage = stage
        self._folder = folder
        self._volumes = DiskVolumes(folder)
        self._client = docker.DockerClient(base_url=stage.engine.host, timeout=120, max_pool_size=_AT_ONCE)
        self._api = self._client.api
        bridges = network.bridges(stage.box.fleet_name)
        info = self._client.info()
        driver: cgroup.Driver = "systemd" if info.get("CgroupDriver") == "systemd" else "cgroupfs"
        parent = cgroup.parent(cgroup.Cgroups(driver, int(info.get("CgroupVersion") or 1)), "fleet-peer")
        self._place = Place("peer", parent, "fleet/sidecar:latest", bridges.open.name, bridges.closed.name)
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def close(self) -> None:
        """Volumes unmounted, connections dropped."""
        self._pool.shutdown()
        self._volumes.detach()
        self._client.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def pair(self, tenant: str, spec: TenantSpec) -> Pair:
        """What the node would make of this spec, for a volume that is there already: that is not measured."""
        volume = self._volumes.ensure(tenant, UID, spec.limits.disk)
        want = Assignment(tenant=tenant, generation=1, want="up", spec=spec)
        app = self._stage.box.state / "apps" / spec.app if spec.app else None
        made = worker_spec(
            want, epoch=1, session=1, uid=UID, volume=volume, app=app, secrets=None, image_prefix="fleet"
        )
        side = SidecarSpec(tenant, 1, 1, UID, volume, self._configured(tenant, spec, volume))
        return Pair(
            worker=containers.name_of("peer", made),
            sidecar=containers.name_of("peer", side),
            worker_options=containers.worker(self._place, made),
            sidecar_options=containers.sidecar(self._place, side),
            port=spec.port,
        )

    def _configured(self, tenant: str, spec: TenantSpec, volume: Volume) -> Path:
        keys = self._stage.minio.credentials
        endpoint = self._stage.box.env["FLEET_S3_ENDPOINT"]
        given = Credentials(keys.access_key, keys.secret_key)
        target = ReplicaTarget(self._stage.bucket, "peer/", endpoint, REGION, lambda _: given)
        paths = {db: f"{tenant}/{db}" for db in spec.databases}
        content = config.sidecar(target, paths, given, rpo_s=spec.rpo, retention_s=spec.retention)
        folder = volume.marker / "sidecar"
        write_config(folder, UID, content)
        # The marker's folder is root's alone; the engine mounts what is in it.
        return folder

    def up(self, pair: Pair, *, at_once: bool) -> None:
        """Create and start both, then wait for the worker's answer."""
        makes: list[Callable[[], None]] = [
            lambda: self._make(pair.sidecar, pair.sidecar_options),
            lambda: self._make(pair.worker, pair.worker_options),
        ]
        self._both(makes, at_once)
        networks = self._api.inspect_container(pair.worker)["NetworkSettings"]["Networks"]
        address = next(n["IPAddress"] for n in networks.values() if n["IPAddress"])
        wait_answer(f"http://{address}:{pair.port}/healthz")

    def down(self, pair: Pair, *, at_once: bool) -> None:
        """Stop and remove both: with as much patience as the node has."""
        ends: list[Callable[[], None]] = [
            lambda: self._end(pair.worker, WORKER_STOP_S),
            lambda: self._end(pair.sidecar, SIDECAR_STOP_S),
        ]
        self._both(ends, at_once)

    def _both(self, calls: list[Callable[[], None]], at_once: bool) -> None:
        if at_once:
            for future in [self._pool.submit(call) for call in calls]:
                future.result()
        else:
            for call in calls:
                call()

    def _make(self, name: str, options: Options) -> None:
        self._api.create_container_from_config(options, name)  # type: ignore[no-untyped-call]  # not in the stubs
        self._api.start(name)

    def _end(self, name: str, timeout_s: int) -> None:
        self._api.stop(name, timeout=timeout_s)
        with contextlib.suppress(docker.errors.NotFound):
            self._api.remove_container(name, v=True)
