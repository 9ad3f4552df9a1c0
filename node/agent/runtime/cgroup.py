"""The one cgroup that all of a node's tenants are in: its name for the engine and its files for freezing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from node.agent.ports import Freezer

Driver = Literal["cgroupfs", "systemd"]

CGROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000  # the engine's, for a container that is made with a number of processors


@dataclass(frozen=True, slots=True)
class Cgroups:
    """How this machine's engine makes cgroups: who (`driver`) and of which hierarchy (`version` 1 or 2)."""

    driver: Driver
    version: int


def parent(cgroups: Cgroups, fleet: str) -> str:
    """What a container's options name as its cgroup's parent. With systemd it must be a slice."""
    return _slice(fleet) if cgroups.driver == "systemd" else f"/{fleet}"


def freezer(cgroups: Cgroups, fleet: str, root: Path = CGROUPS) -> Freezer:
    """The files that freeze everything in that parent at once."""
    v2 = cgroups.version == 2
    group = (root if v2 else root / "freezer") / parent(cgroups, fleet).lstrip("/")
    return Freezer(
        group=group,
        file=group / ("cgroup.freeze" if v2 else "freezer.state"),
        freeze=b"1" if v2 else b"FROZEN",
        thaw=b"0" if v2 else b"THAWED",
        v2=v2,
    )


def container_group(cgroups: Cgroups, freezer: Freezer, container_id: str) -> Path:
    """The folder of one container's own group, below the parent's."""
    return freezer.group / _own(cgroups, container_id)


def quota(cgroups: Cgroups, fleet: str, container_id: str, cpus: float, root: Path = CGROUPS) -> tuple[Path, bytes]:
    """The file that bounds how much one container computes, and what to write there."""
    v2 = cgroups.version == 2
    everybody = (root if v2 else root / "cpu") / parent(cgroups, fleet).lstrip("/")
    quota_us = round(cpus * _PERIOD_US)
    what = ("cpu.max", f"{quota_us} {_PERIOD_US}") if v2 else ("cpu.cfs_quota_us", str(quota_us))
    return everybody / _own(cgroups, container_id) / what[0], what[1].encode()


def _own(cgroups: Cgroups, container_id: str) -> str:
    return f"docker-{container_id}.scope" if cgroups.driver == "systemd" else container_id


def _slice(fleet: str) -> str:
    """A dash in a slice's name is a level of the hierarchy; ours is one level."""
    return f"{fleet.replace('-', '_')}.slice"
