"""From what a container is for to everything that the engine is told of it. Pure; pinned whole in the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from node.agent.ports import Container, JobSpec, Role, SidecarSpec, WorkerSpec

FLEET = "fleet.name"
TENANT = "fleet.tenant"
ROLE = "fleet.role"
EPOCH = "fleet.epoch"
SESSION = "fleet.session"
GENERATION = "fleet.generation"

SCRATCH_BYTES = 64 << 20
SIDECAR_PIDS = 128
SIDECAR_CPUS = 1.0
LITESTREAM_CONFIG = "/etc/litestream"
_OPEN_FILES = 8192
# The kernel kills tenants before the sidecars, and both before the agent and the engine.
_OOM_ORDER: Mapping[Role, int] = {"worker": 500, "sidecar": 300, "job": 300}
_ROLES: Mapping[str, Role] = {role: role for role in _OOM_ORDER}

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """What a node's containers share: the fleet's name, the cgroup parent, the sidecar's image, the two networks."""

    fleet: str
    cgroup_parent: str
    sidecar_image: str
    open_network: str
    closed_network: str


def name_of(fleet: str, spec: WorkerSpec | SidecarSpec | JobSpec) -> str:
    """A container's name: the same for the same purpose, so that making it twice is noticed."""
    match spec:
        case WorkerSpec():
            return f"{fleet}-{spec.tenant}-worker"
        case SidecarSpec():
            return f"{fleet}-{spec.tenant}-sidecar"
        case JobSpec():
            return f"{fleet}-{spec.tenant}-job-{hashlib.sha256(repr(spec.args).encode()).hexdigest()[:8]}"


def worker(place: Place, spec: WorkerSpec, image_volumes: Iterable[str] = ()) -> Options:
    """The worker's options. `image_volumes` are folders for which the image wants a volume of the engine's: they
    would escape the disk allowance, so they become scratch as `spec.writable` does: in memory, empty at each start.
    """
    mounts = [_bind(spec.volume.data, "/data"), _bind(spec.volume.run, "/run/fleet", read_only=True)]
    if spec.app is not None:
        mounts.append(_bind(spec.app, "/app", read_only=True))
    if spec.secrets is not None:
        mounts.append(_bind(spec.secrets, "/run/secrets", read_only=True))
    mounted = {m["Target"] for m in mounts}
    scratch = sorted({*spec.writable, *image_volumes} - mounted - {"/tmp"})  # noqa: S108 - a path in the container
    network = place.open_network if spec.egress else place.closed_network
    options = _common(place, spec, "worker", spec.generation, mounts, spec.memory_bytes, spec.cpus, spec.pids)
    options |= {"Image": spec.image, "Env": [f"{k}={v}" for k, v in sorted(spec.env.items())], "Hostname": spec.tenant}
    if spec.command:
        options["Cmd"] = list(spec.command)
    host = options["HostConfig"]
    size = min(SCRATCH_BYTES, spec.memory_bytes // 2)
    host["Tmpfs"] = _scratch("/tmp", "1777", size)  # noqa: S108 - a path in the container
    for path in scratch:
        host["Tmpfs"] |= _scratch(path, "0700", size, spec.uid)
    # Reaps what a tenant leaves behind, and passes SIGTERM on to a server that would ignore it as process 1.
    host["Init"] = True
    host["IpcMode"] = "private"
    host["ShmSize"] = size
    host["NetworkMode"] = network
    if not spec.egress:
        # The engine would look names up on the host for a network without a way out, and names carry data.
        host["Dns"] = ["127.0.0.1"]
    return options


def at(network: str, address: str) -> Options:
    """What puts a worker at an address of its network."""
    return {"NetworkingConfig": {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": address}}}}}


def sidecar(place: Place, spec: SidecarSpec) -> Options:
    """The options of the container that replicates a tenant's files."""
    return _litestream(place, spec, "sidecar", ["replicate", "-config", f"{LITESTREAM_CONFIG}/litestream.yml"])


def job(place: Place, spec: JobSpec) -> Options:
    """The options of a container that runs one Litestream command."""
    return _litestream(place, spec, "job", list(spec.args))


def _litestream(place: Place, spec: SidecarSpec | JobSpec, role: Role, command: list[str]) -> Options:
    mounts = [
        _bind(spec.volume.data, "/data"),
        _bind(spec.volume.meta, "/meta"),
        _bind(spec.config, LITESTREAM_CONFIG, read_only=True),
    ]
    options = _common(place, spec, role, 0, mounts, spec.memory_bytes, SIDECAR_CPUS, SIDECAR_PIDS)
    options |= {"Image": place.sidecar_image, "Cmd": command, "Env": []}
    host = options["HostConfig"]
    host["Tmpfs"] = _scratch("/tmp", "1777", SCRATCH_BYTES)  # noqa: S108 - a path in the container
    host["IpcMode"] = "none"
    host["NetworkMode"] = "host"
    return options


def _common(
    place: Place,
    spec: WorkerSpec | SidecarSpec | JobSpec,
    role: Role,
    generation: int,
    mounts: list[Options],
    memory_bytes: int,
    cpus: float,
    pids: int,
) -> Options:
    labels = {
        FLEET: place.fleet,
        TENANT: spec.tenant,
        ROLE: role,
        EPOCH: str(spec.epoch),
        SESSION: str(spec.session),
        GENERATION: str(generation),
    }
    host: Options = {
        "Mounts": mounts,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "NanoCpus": round(cpus * 1e9),
        "PidsLimit": pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": _OPEN_FILES, "Hard": _OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "OomScoreAdj": _OOM_ORDER[role],
        "CgroupParent": place.cgroup_parent,
        "LogConfig": {"Type": "local", "Config": {"max-size": "4m", "max-file": "2", "compress": "false"}},
        "RestartPolicy": {"Name": "no"},
    }
    user = f"{spec.uid}:{spec.uid}"
    # An image's own health check would start a process in every tenant every few seconds.
    return {"User": user, "Labels": labels, "Healthcheck": {"Test": ["NONE"]}, "HostConfig": host}


def _bind(source: Path, target: str, *, read_only: bool = False) -> Options:
    propagation = {"Propagation": "rprivate"}
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only, "BindOptions": propagation}


def _scratch(path: str, mode: str, size_bytes: int, uid: int | None = None) -> dict[str, str]:
    owner = "" if uid is None else f",uid={uid},gid={uid}"
    return {path: f"rw,exec,nosuid,nodev,mode={mode},size={size_bytes}{owner}"}


def container(
    name: str, labels: Mapping[str, str], *, running: bool, address: str = "", instance: str = ""
) -> Container | None:
    """One of our containers from its labels; None when it is not a tenant's."""
    role = _ROLES.get(labels.get(ROLE, ""))
    if role is None:
        return None
    return Container(
        name=name,
        tenant=labels.get(TENANT, ""),
        role=role,
        epoch=int(labels.get(EPOCH, "0")),
        session=int(labels.get(SESSION, "0")),
        generation=int(labels.get(GENERATION, "0")),
        running=running,
        address=address,
        instance=instance,
    )


def ended(found: Container, exit_code: int, *, oom_killed: bool) -> Container:
    """The same container with how it ended."""
    return replace(found, running=False, address="", exit_code=exit_code, oom_killed=oom_killed)
