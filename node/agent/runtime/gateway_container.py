"""The gateway's container: HAProxy on the host's network, outside of the cgroup that a fence freezes."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import docker
import docker.errors

from node.agent.runtime.errors import translated

LABEL = "fleet.gateway"
MEMORY_BYTES = 1 << 30
PIDS = 256


def options(fleet: str, image: str, folder: Path, uid: int) -> dict[str, Any]:
    """Everything that the engine is told of it. Pure.

    `folder` is mounted read-only under its own path, `folder/run` writable: HAProxy cannot change what it is told.
    """
    mounts = [
        {"Type": "bind", "Source": str(folder), "Target": str(folder), "ReadOnly": True},
        {"Type": "bind", "Source": str(folder / "run"), "Target": str(folder / "run"), "ReadOnly": False},
    ]
    return {
        "Image": image,
        "Cmd": ["-W", "-db", "-S", f"{folder}/run/master.sock,mode,600", "-f", f"{folder}/haproxy.cfg"],
        "User": f"{uid}:{uid}",
        "Labels": {LABEL: fleet},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Mounts": mounts,
            "NetworkMode": "host",
            "IpcMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": MEMORY_BYTES,
            "MemorySwap": MEMORY_BYTES,
            "PidsLimit": PIDS,
            # Open files: the engine's own limit; HAProxy takes what its connections need and says if it is too little.
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "LogConfig": {"Type": "local", "Config": {"max-size": "4m", "max-file": "2", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},
        },
    }


class GatewayContainer:
    """The gateway's process port over the engine: one container, `<fleet>-gateway`. Raises RuntimeFailed.

    `folder` is the gateway's (`<runtime_dir>/gateway`); `uid` HAProxy's user, the one its files belong to.
    """

    def __init__(self, client: docker.DockerClient, fleet: str, image: str, folder: Path, uid: int) -> None:
        self._api = client.api
        self.name = f"{fleet}-gateway"
        self._options = options(fleet, image, folder, uid)

    def start(self) -> None:
        """Start it, replacing one that ended; one that runs is left alone. Its image must be here."""
        if self.alive():
            return
        with translated(f"starting the gateway {self.name}"):
            with contextlib.suppress(docker.errors.NotFound):
                self._api.remove_container(self.name, force=True)
            self._api.create_container_from_config(self._options, self.name)  # type: ignore[no-untyped-call]  # not in the stubs
            self._api.start(self.name)

    def stop(self) -> None:
        """SIGKILL and remove; one that is gone is fine."""
        with translated(f"stopping the gateway {self.name}"), contextlib.suppress(docker.errors.NotFound):
            self._api.remove_container(self.name, force=True)

    def alive(self) -> bool:
        """Whether it runs."""
        with translated(f"looking at the gateway {self.name}"):
            try:
                return bool(self._api.inspect_container(self.name)["State"]["Running"])
            except docker.errors.NotFound:
                return False

    def output(self) -> str:
        """The last of what it wrote; empty when there is no container."""
        with translated(f"reading what the gateway {self.name} wrote"):
            try:
                return bytes(self._api.logs(self.name, tail=40)).decode("utf-8", "replace")
            except docker.errors.NotFound:
                return ""
