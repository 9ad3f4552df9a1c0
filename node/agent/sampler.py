"""What is known of the tenants here, for the report and for metrics: replication every few seconds, use at a scrape."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from node.agent.custody.errors import CustodyError
from node.agent.custody.values import Replication
from node.agent.metrics import NodeSnapshot, TenantSample
from node.agent.node import Node
from node.agent.ports import AsideVolume, RuntimeFailed, Usage
from node.agent.tenant import Tenant

log = structlog.get_logger()

INTERVAL_S = 5.0
# The report says anew when the bucket was last level with the disk at most so often: each change wakes its readers.
RETELL_S = 15.0
# A server may take its time to make its files; after this it is worth a warning.
APPEAR_S = 10.0


class Sampler:
    """`keep` runs on the agent's event loop, `snapshot` in a scrape's thread."""

    def __init__(self, node: Node, state: Path, lease_remaining_s: Callable[[], float | None]) -> None:
        self._node = node
        self._state = state
        self._lease_remaining_s = lease_remaining_s
        self._replication: dict[str, Replication] = {}
        self.aside: Callable[[], tuple[AsideVolume, ...] | None] = lambda: None

    async def keep(self) -> None:
        """Ask every sidecar here where it is, for ever; side by side, so that one that hangs delays no other."""
        while True:
            await asyncio.gather(*(self._look(t) for t in list(self._node.tenants.values())))
            await asyncio.sleep(INTERVAL_S)

    async def _look(self, tenant: Tenant) -> None:
        if not tenant.actual.held:
            self._replication.pop(tenant.name, None)
            return
        try:
            found = await self._node.parts.custody.replication(tenant.name)
        except CustodyError as e:
            log.debug("replication not known", tenant=tenant.name, error=str(e))
            return
        self._replication[tenant.name] = found
        self._tell(tenant, found)

    def _tell(self, tenant: Tenant, found: Replication) -> None:
        board, name = self._node.board, tenant.name
        before = board.get(name)
        changes: dict[str, object] = {
            "behind": found.behind,
            "lag_s": None if found.lag_s is None else round(found.lag_s, 1),
        }
        if found.last_confirmed is not None and found.last_confirmed - (before.last_confirmed or 0) >= RETELL_S:
            changes["last_confirmed"] = found.last_confirmed
        if time.monotonic() - tenant.walk.started_at > APPEAR_S:
            missing = self._node.parts.custody.missing(name)
            changes["warnings"] = tenant.walk.told() + tuple(
                f"{db} has not appeared under /data: it is replicated once it does" for db in missing
            )
        board.update(name, **changes)

    def snapshot(self) -> NodeSnapshot:
        """The machine now, for a scrape. Blocking."""
        room, aside = os.statvfs(self._state), self.aside()
        return NodeSnapshot(
            tenants=tuple(self._sample(t) for t in list(self._node.tenants.values()) if t.want is not None),
            lease_remaining_s=self._lease_remaining_s(),
            state_bytes=room.f_blocks * room.f_frsize,
            state_free_bytes=room.f_bavail * room.f_frsize,
            aside_volumes=None if aside is None else len(aside),
            aside_bytes=None if aside is None else sum(v.size_bytes for v in aside),
        )

    def _sample(self, tenant: Tenant) -> TenantSample:
        report = self._node.board.get(tenant.name)
        found = self._replication.get(tenant.name)
        want = tenant.want
        worker = self._usage(tenant.walk.worker)
        volume = tenant.walk.volume if tenant.walk.claim is not None else None
        sizes = [_size(volume.data, db) for db in want.spec.databases] if volume and want else []
        return TenantSample(
            tenant=tenant.name,
            up=report.state == "running",
            behind=report.behind,
            lag_s=found.lag_s if found else None,
            last_confirmed=found.last_confirmed if found else None,
            database_bytes=sum(sizes) if volume else None,
            memory_bytes=worker.memory_bytes if worker else None,
            disk_bytes=self._disk(tenant.name) if volume else None,
            disk_limit_bytes=want.spec.limits.disk if want else None,
            cpu_s=worker.cpu_s if worker else None,
            restarts={"worker": tenant.restarts, "sidecar": found.restarts if found else 0},
            unguarded=found.unguarded if found else None,
            orphaned=sum(n for files in tenant.walk.orphans.values() for n in files.values()),
        )

    def _usage(self, container: str) -> Usage | None:
        try:
            return self._node.parts.runtime.usage(container) if container else None
        except RuntimeFailed:
            return None

    def _disk(self, tenant: str) -> int | None:
        try:
            return self._node.parts.volumes.used_bytes(tenant)
        except (RuntimeFailed, OSError):
            return None


def _size(data: Path, db: str) -> int:
    """Bytes of a file that a tenant can replace at any moment: no link is followed on the way to it."""
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        *parents, name = db.split("/")
        for part in parents:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    except OSError:
        return 0
    finally:
        os.close(folder)
