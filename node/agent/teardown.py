"""Takes what a stopped fleet leaves on a machine away: containers, networks, firewall rules, cgroups, mounts."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import docker
import docker.errors

from node import lock
from node.agent.custody.view import AGENT_LOCK, GUARD_LOCK
from node.agent.ports import RuntimeFailed
from node.agent.runtime.docker import DockerRuntime
from node.agent.runtime.gateway_container import GatewayContainer
from node.agent.runtime.volumes import DiskVolumes

if TYPE_CHECKING:
    from node.settings import Settings


def run(settings: Settings) -> int:
    """Answers the exit code: 5 while a guard or an agent of this state folder lives. Data under it is not touched."""
    home = settings.runtime_dir
    if home.is_dir():
        try:
            for name in (GUARD_LOCK, AGENT_LOCK):
                lock.take(home / name, wait_s=2.0)
        except lock.Held:
            sys.stderr.write(f"fleet: this fleet runs ({home}): stop 'fleet serve' or 'fleet node' first\n")
            return 5
    try:
        GatewayContainer(docker.from_env(), home.name, "", home / "gateway", 0).stop()
        DockerRuntime(home.name, image_prefix=settings.image_prefix).teardown()
    except (RuntimeFailed, docker.errors.DockerException) as e:
        sys.stderr.write(f"fleet: {e}\n")
        return 6
    DiskVolumes(settings.state_dir).detach()
    shutil.rmtree(home, ignore_errors=True)
    return 0
