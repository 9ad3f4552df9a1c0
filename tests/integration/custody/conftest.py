"""A machine for custody: the real MinIO, the real Litestream, no engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

from node.agent.custody.context import Bounds
from node.agent.custody.custody import Custody
from node.agent.custody.values import Credentials, ReplicaTarget
from node.agent.custody.watchdog import Limits
from node.api import Assignment
from node.bucket.records import Restore
from node.bucket.spec import TenantSpec
from node.bucket.store import Store
from tests.integration.custody.local import FixedSession, LocalRuntime, LocalVolumes
from tests.testbed.stores import StoreServer

UID = 41234
DISK = 1 << 30


@dataclass
class Machine:
    """One node: its disk, its runtime, its session. `custody` is made anew by `restart_agent`."""

    server: StoreServer
    bucket: str
    folder: Path
    store: Store
    session: FixedSession
    runtime: LocalRuntime = field(init=False)
    volumes: LocalVolumes = field(init=False)
    custody: Custody = field(init=False)
    bounds: Bounds = field(default_factory=Bounds)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.runtime = LocalRuntime(self.folder)
        self.volumes = LocalVolumes(self.folder)
        self.restart_agent()

    def restart_agent(self, **changes: Any) -> None:
        """A new agent on the same disk: it remembers nothing."""
        credentials = Credentials(self.server.credentials.access_key, self.server.credentials.secret_key)
        target = ReplicaTarget(self.bucket, "fleet/", self.server.endpoint, "us-east-1", lambda prefix: credentials)
        self.custody = Custody(
            changes.get("store", self.store), target, changes.get("runtime", self.runtime),
            changes.get("volumes", self.volumes), lambda: self.session,
            self.folder / "run", bounds=self.bounds, limits=self.limits, now=changes.get("now", time.time),
        )  # fmt: skip

    @property
    def data(self) -> Path:
        """Where tenant `acme` keeps its files."""
        return self.folder / "t" / "acme" / "data"

    def connect(self, name: str = "app.db", *, autocheckpoint: int = 0) -> apsw.Connection:
        """Open a tenant's file as its worker would."""
        db = apsw.Connection(str(self.data / name))
        db.set_busy_timeout(10_000)
        db.pragma("journal_mode", "wal")
        db.pragma("wal_autocheckpoint", autocheckpoint)
        for suffix in ("", "-wal", "-shm"):
            if (self.data / (name + suffix)).exists():
                os.chown(self.data / (name + suffix), UID, UID)
        return db

    def write(self, rows: int, name: str = "app.db") -> None:
        """Commit rows one by one in `r`."""
        db = self.connect(name)
        db.execute("create table if not exists r(i integer primary key, v blob)")
        os_rows = range(rows)
        for _ in os_rows:
            db.execute("insert into r(v) values(randomblob(100))")
        for suffix in ("", "-wal", "-shm"):
            os.chown(self.data / (name + suffix), UID, UID)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.close()

    def count(self, name: str = "app.db") -> int:
        """How many rows `r` has."""
        db = apsw.Connection(str(self.data / name), flags=apsw.SQLITE_OPEN_READWRITE)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            (count,) = db.execute("select count(*) from r").fetchall()[0]
            assert isinstance(count, int)
            return count
        finally:
            db.close()

    async def up(self, a: Assignment, born: Callable[[], None] | None = None) -> Any:
        """The walk: claim, prepare, stream, settle; `born` is what the worker of a new tenant does."""
        claim = await self.custody.claim(a)
        prepared = await self.custody.prepare(claim, UID, DISK, lambda phase, fraction: None)
        await self.custody.stream(prepared.claim, UID)
        if prepared.claim.born and born:
            born()
        await self.custody.settle(prepared.claim)
        return prepared


def assignment(*databases: str, restore: Restore | None = None, **changes: Any) -> Assignment:
    """Tenant `acme` with these files."""
    spec = TenantSpec(image="x", databases=databases or ("app.db",), **changes)
    return Assignment(tenant="acme", generation=1, want="up", spec=spec, restore=restore)


@pytest.fixture
def machine(minio: StoreServer, bucket: str, store: Store, tmp_path: Path) -> Iterator[Machine]:
    """Node n1 on the session's MinIO."""
    found = Machine(minio, bucket, tmp_path / "n1", store, FixedSession())
    yield found
    found.runtime.close()


@pytest.fixture
def other(minio: StoreServer, bucket: str, store: Store, tmp_path: Path) -> Iterator[Machine]:
    """Node n2 on the same bucket."""
    found = Machine(minio, bucket, tmp_path / "n2", store, FixedSession(node="n2", boot_id="boot-2"))
    yield found
    found.runtime.close()
