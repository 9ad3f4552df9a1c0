"""Composition root of the guard: where it meets a real bucket, cgroup and agent. Kept light on imports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from node.agent import engine
from node.agent.custody import sessionfile
from node.agent.ports import Freezer, RuntimeFailed
from node.agent.runtime import cgroup, groups

if TYPE_CHECKING:
    from node.agent.custody.guard import Guard
    from node.bucket.store import Store
    from node.settings import Settings

_ENGINE_S = 2.0

log = structlog.get_logger()


def capacity_of(settings: Settings) -> tuple[int, float, int]:
    """Bytes of memory, CPUs and bytes of disk that this machine offers: as set, else what it has."""
    memory = settings.memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = settings.disk_bytes
    if disk is None:
        folder = next(p for p in [settings.state_dir, *settings.state_dir.parents] if p.exists())
        figures = os.statvfs(folder)
        disk = figures.f_frsize * figures.f_bavail
    return memory, float(settings.cpus or os.cpu_count() or 1), disk


def agent_url(settings: Settings) -> str:
    """Where controllers reach this machine's agent."""
    scheme = "https" if settings.tls_cert is not None else "http"
    return settings.agent_url or f"{scheme}://{settings.agent_listen}"


def gateway_url(settings: Settings) -> str:
    """Where clients and other machines' gateways reach this machine's gateway."""
    scheme = "https" if settings.tls_cert is not None else "http"
    return settings.gateway_url or f"{scheme}://{settings.gateway_listen}"


def spawn_agent() -> subprocess.Popen[bytes]:
    """Start an agent in a session of its own: a signal for the guard's terminal is not for the agent."""
    return subprocess.Popen(
        [sys.executable, "-m", "node.agent", "agent", *sys.argv[2:]], stdin=subprocess.DEVNULL, start_new_session=True
    )


def spawn_guard() -> subprocess.Popen[bytes]:
    """Start a guard in place of one that died, out of the agent's own life; it leaves if another one lives."""
    return subprocess.Popen(
        [sys.executable, "-m", "node.agent", "heir", *sys.argv[2:]], stdin=subprocess.DEVNULL, start_new_session=True
    )


async def cage(settings: Settings) -> Freezer:
    """The cgroup parent of this machine's tenants, which is there afterwards.

    A guard that is back asks nobody: it has a deadline. Else it waits for an engine that was never heard in this boot:
    nothing of ours can run yet, so there is nothing to guard.
    """
    while True:
        back = (settings.runtime_dir / sessionfile.NAME).exists()
        found = engine.recall(settings.runtime_dir) if back else await asyncio.to_thread(engine.ask)
        found = found or (await asyncio.to_thread(engine.ask) if back else engine.recall(settings.runtime_dir))
        if found is not None:
            freezer = cgroup.freezer(found, settings.runtime_dir.name)
            try:
                engine.remember(settings.runtime_dir, found)
                await asyncio.to_thread(groups.make, found, freezer)
            except (RuntimeFailed, OSError) as e:
                log.warning("cgroup.missing", error=str(e))
            else:
                return freezer
        else:
            log.warning("engine.silent", hint="the guard waits for it: install or start Docker")
        await asyncio.sleep(_ENGINE_S)


def open_bucket(settings: Settings) -> Store:
    """The bucket, with answers short enough for several attempts before a deadline. Its library loads slowly."""
    from node.bucket.s3 import Location, S3Store

    return S3Store(Location.of(settings), connect_timeout_s=2.0, read_timeout_s=4.0, connections=2)


async def compose(settings: Settings) -> Guard:
    """The guard of this machine, from its settings."""
    from node.agent.custody.guard import Guard, Place
    from node.agent.custody.lease import Machine
    from node.bucket.records import Capacity

    freezer = await cage(settings)
    memory_bytes, cpus, disk_bytes = capacity_of(settings)
    machine = Machine(
        node=settings.node,
        url=agent_url(settings),
        gateway_url=gateway_url(settings),
        capacity=Capacity(memory_bytes=memory_bytes, cpus=cpus, disk_bytes=disk_bytes),
        labels=dict(settings.labels),
        version=metadata.version("tenantry"),
    )
    return Guard(
        machine,
        settings.mode,
        lambda: open_bucket(settings),
        freezer,
        Place(settings.runtime_dir, settings.state_dir),
        spawn_agent,
    )


def _come_first() -> None:
    """A busy machine must not make the guard late, nor a full one choose it to die. The agent inherits both."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900")


def run(settings: Settings, *, heir: bool) -> int:
    """Guard this machine until told to leave; answers the exit code (2: the bucket is another fleet's)."""
    from node.agent.custody.fleetfile import AnotherFleet
    from node.agent.custody.guard import main
    from node.bucket.errors import Unsupported

    settings.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _come_first()
    try:
        return asyncio.run(main(lambda: compose(settings), settings.runtime_dir, heir=heir))
    except (AnotherFleet, Unsupported) as e:
        sys.stderr.write(f"fleet: {e}\n")
        return 2
