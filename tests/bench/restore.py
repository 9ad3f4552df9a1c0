"""A tenant from the bucket: its download against `litestream restore` alone, and the whole way to its first answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from node.agent.custody import config
from node.agent.custody.files import write_config
from node.agent.custody.values import Credentials, ReplicaTarget
from node.bucket import keys
from node.bucket.cas import read
from node.bucket.records import Owner
from node.bucket.spec import TenantSpec
from tests.bench.figures import Figure, quantile
from tests.bench.stage import DATABASE, Stage, stage
from tests.testbed.stores import REGION

MIB = 1 << 20
SIZES = (1 * MIB, 100 * MIB, 1024 * MIB)
QUICK = (1 * MIB, 20 * MIB)
ROUNDS = 3
BLOB = 64 << 10
COMMIT_BYTES = 8 * MIB
LITESTREAM = Path(sys.executable).with_name("litestream")


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Medians; ours and the peer's in turns, each from the same objects to the same transaction."""
    with stage() as s:
        for size_bytes in QUICK if quick else SIZES:
            measured = _measure(s, size_bytes, 1 if quick else ROUNDS)
            yield from measured.figures()


@dataclass
class _Measured:
    """Seconds of each round."""

    spec: TenantSpec
    size_bytes: int
    whole_s: list[float] = field(default_factory=list)
    peer_s: list[float] = field(default_factory=list)
    unchecked_s: list[float] = field(default_factory=list)
    phases: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def figures(self) -> Iterator[Figure]:
        name = f"{self.size_bytes // MIB} MiB"
        phases = {f"{phase}_s": round(quantile(took, 0.5), 3) for phase, took in self.phases.items()}
        yield Figure(f"restore of {name}: to the first answer", quantile(self.whole_s, 0.5), "s", raw=phases)
        ours, peer = quantile(self.phases["restore"], 0.5), quantile(self.peer_s, 0.5)
        raw = {
            "restore_s": [round(v, 2) for v in self.phases["restore"]],
            "litestream_s": [round(v, 2) for v in self.peer_s],
            "litestream_without_its_check_s": [round(v, 2) for v in self.unchecked_s],
            "ours_mib_per_s": round(self.size_bytes / MIB / ours, 1),
            "litestream_mib_per_s": round(self.size_bytes / MIB / peer, 1),
        }
        # What is smaller is over before it could be compared: a container's start is most of it.
        bound = 0.9 if self.size_bytes >= SIZES[-1] else None
        yield Figure(f"restore of {name}: speed / litestream's alone", peer / ours, "", bound, "at least", raw)


def _measure(s: Stage, size_bytes: int, rounds: int) -> _Measured:
    (tenant,) = s.names("restore", 1)
    spec = s.changed(limits={"memory": 256 * MIB, "cpus": 0.5, "disk": 3 * size_bytes + 256 * MIB})
    s.up(tenant, spec)
    _fill(s.volume(tenant) / "data" / DATABASE, size_bytes)
    s.down(tenant)
    measured = _Measured(spec, size_bytes)
    peer = _Peer(s, tenant)
    for number in range(rounds):
        if number % 2:
            _ours(s, tenant, measured, peer)
        else:
            peer.restore(measured)
            _ours(s, tenant, measured, None)
        s.down(tenant)
    return measured


def _ours(s: Stage, tenant: str, measured: _Measured, peer: _Peer | None) -> None:
    """One restore on a machine that has nothing of the tenant; the peer's from the same objects after it."""
    if peer is not None:
        peer.look()
    s.lose_volume(tenant)
    began = time.perf_counter()
    view = s.up(tenant, measured.spec)
    s.answered(tenant)
    measured.whole_s.append(time.perf_counter() - began)
    for phase in view["phases"]:
        measured.phases[phase["name"]].append(phase["duration_s"])
    if peer is not None:
        peer.restore(measured, looked=True)


class _Peer:
    """`litestream restore` on this machine's disk, as a person would call it."""

    def __init__(self, s: Stage, tenant: str) -> None:
        self._s = s
        self._tenant = tenant
        self._folder = s.box.folder / "peer"
        self._folder.mkdir(exist_ok=True)
        self._prefix, self._txid = "", ""

    def look(self) -> None:
        """From where to where: what a restore of the tenant would take now."""
        store = self._s.minio.store(self._s.bucket, "fleet/")
        held = read(store, keys.owner(self._tenant), Owner)
        store.close()
        assert held is not None
        self._prefix = keys.database(self._tenant, held.record.data_epoch, DATABASE)
        self._txid = held.record.positions[DATABASE]

    def restore(self, measured: _Measured, *, looked: bool = False) -> None:
        """With the check that ours makes, and without any."""
        if not looked:
            self.look()
        measured.peer_s.append(self._call(("-integrity-check", "full")))
        measured.unchecked_s.append(self._call(()))

    def _call(self, check: tuple[str, ...]) -> float:
        given = self._s.minio.credentials
        credentials = Credentials(given.access_key, given.secret_key)
        target = ReplicaTarget(self._s.bucket, "fleet/", self._s.minio.endpoint, REGION, lambda _: credentials)
        settings = self._folder / "config"
        write_config(settings, 0, config.restore(target, {DATABASE: self._prefix}, credentials))
        out = self._folder / "out.db"
        command = [str(LITESTREAM), "restore", "-config", str(settings / config.FILE), "-txid", self._txid, *check]
        command += ["-o", str(out), config.data_path(DATABASE)]
        # Litestream does not start with a bundle of certificates in its environment.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=clean)
        took = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        for path in self._folder.glob("out.db*"):
            path.unlink()
        return took


def _fill(path: Path, size_bytes: int) -> None:
    """Rows that do not compress, in commits of some MiB, as the tenant's own server would write them."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(60_000)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.pragma("wal_autocheckpoint", 0)
    db.pragma("synchronous", 1)
    left = size_bytes
    try:
        while left > 0:
            commit = min(left, COMMIT_BYTES)
            with db:
                for _ in range(commit // BLOB):
                    db.execute("INSERT INTO rows (body) VALUES (randomblob(?))", (BLOB,))
            left -= commit
    finally:
        db.close()
