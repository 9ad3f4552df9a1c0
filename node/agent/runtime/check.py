"""Whether this machine can run tenants: each finding with the way to mend it. `python -m node.agent check --json`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.agent.ports import RuntimeFailed
from node.agent.runtime import quota
from node.agent.runtime.docker import DockerRuntime

IMAGES = ("worker", "sidecar", "gateway")
OLDEST_ENGINE = (20, 10)
# An engine that takes longer to say what it is hangs.
ENGINE_S = 10
# A disk with less than both of these is full for our purposes.
LOW_FREE_RATIO = 0.05
LOW_FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, whether it is well, what was seen, and what to do if not."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(state: Path, image_prefix: str, engine: str | None = None) -> list[Finding]:
    """Every check of this machine, in the order in which one would mend them. Never raises for what it finds."""
    return [*_engine(image_prefix, engine), firewall_tools(), quotas(quota.supported()), _disk(state)]


def _engine(image_prefix: str, engine: str | None) -> Iterator[Finding]:
    runtime = DockerRuntime("doctor", image_prefix=image_prefix, engine=engine, answer_s=ENGINE_S)
    try:
        info = runtime.info()
        missing = [name for name in IMAGES if not runtime.image_exists(f"{image_prefix}/{name}:latest")]
    except RuntimeFailed as e:
        yield engine_failed(e)
        return
    yield engine_found(info)
    yield cgroups_found(info)
    yield images_found(image_prefix, missing)


def engine_failed(error: RuntimeFailed) -> Finding:
    """No answer of the engine, as a finding."""
    match error.reason:
        case "denied":
            return Finding("engine", False, str(error), "run fleet as root, or add the user to the group docker")
        case "no_engine":
            fix = "apt-get install docker.io, then systemctl start docker; or point DOCKER_HOST at the engine"
            return Finding("engine", False, str(error), fix)
        case _:
            return Finding("engine", False, str(error), "restart the engine: systemctl restart docker")


def engine_found(info: Mapping[str, Any]) -> Finding:
    """The engine's version and what it must be able to do."""
    version = str(info.get("ServerVersion", "unknown"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST_ENGINE:
        return Finding("engine", False, f"version {version} is too old", "install Docker 20.10 or newer")
    weak = [name for key, name in (("MemoryLimit", "memory"), ("PidsLimit", "processes")) if not info.get(key, True)]
    if not info.get("CpuCfsQuota", True):
        weak.append("CPU")
    if weak:
        fix = "boot with these cgroup controllers on (cgroup_enable=memory swapaccount=1)"
        return Finding("engine", False, f"version {version} cannot limit {', '.join(weak)}", fix)
    return Finding("engine", True, f"version {version}, storage {info.get('Driver', 'unknown')}")


def cgroups_found(info: Mapping[str, Any]) -> Finding:
    """Which cgroups the guard freezes."""
    driver, version = str(info.get("CgroupDriver", "")), str(info.get("CgroupVersion") or "1")
    if driver not in ("cgroupfs", "systemd"):
        fix = "run the engine as root with native.cgroupdriver=systemd: without cgroups the guard can't freeze tenants"
        return Finding("cgroup", False, f"driver {driver or 'none'}", fix)
    return Finding("cgroup", True, f"version {version}, driver {driver}")


def images_found(prefix: str, missing: list[str]) -> Finding:
    """Whether the engine has what every tenant is made of."""
    if missing:
        names = ", ".join(f"{prefix}/{name}" for name in missing)
        return Finding("images", False, f"missing: {names}", f"images/build --prefix {prefix}")
    return Finding("images", True, f"{prefix}/worker, {prefix}/sidecar, {prefix}/gateway")


def firewall_tools() -> Finding:
    """Whether tenants can be kept from this host and from each other."""
    tools = ("iptables", "ip6tables", "iptables-restore", "ip6tables-restore")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return Finding("firewall", False, f"no {', '.join(missing)}", "apt-get install iptables")
    if os.geteuid() != 0:
        return Finding("firewall", False, "the agent is not root", "run fleet serve or fleet node as root")
    return Finding("firewall", True, "iptables and ip6tables")


def quotas(why_not: str) -> Finding:
    """Whether tenants' disk allowances are kept."""
    if why_not:
        detail = f"tenants' disk allowances are not kept: {why_not}"
        return Finding("quota", False, detail, "mend that; until then one tenant can fill the disk")
    return Finding("quota", True, "each tenant's data is a file system of its own size")


def _disk(state: Path) -> Finding:
    folder = next(p for p in (state, *state.absolute().parents) if p.exists())
    room = os.statvfs(folder)
    return disk_found(str(folder), room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize)


def disk_found(folder: str, free_bytes: int, total_bytes: int) -> Finding:
    """Whether the disk of the state folder has room."""
    detail = f"{free_bytes >> 20} MiB of {total_bytes >> 20} MiB free under {folder}"
    if free_bytes < LOW_FREE_BYTES and free_bytes < total_bytes * LOW_FREE_RATIO:
        return Finding("disk", False, f"full: {detail}", "free some, or move FLEET_STATE_DIR to a larger disk")
    return Finding("disk", True, detail)
