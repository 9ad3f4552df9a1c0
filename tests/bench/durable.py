"""A write with an rpo of 0 against one `/sync` of its sidecar plus one GET of a small object; and writes a second.

Both in turns, on the same tenant, the same file and the same sidecar: only who asks is another.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from node.agent.custody import config
from node.bucket import keys
from node.bucket.s3 import S3Store
from tests.bench.figures import Figure, quantile
from tests.bench.gateway import UNITS
from tests.bench.stage import DATABASE, Stage, stage

PAIRS = 400
WARM_UP = 20
WRITERS = (1, 16, 256)
LOAD_S = 6
ROW = b"x" * 100
# A tenant with the usual half CPU is throttled for tens of milliseconds at a time once it is busy.
LIMITS = {"memory": 256 << 20, "cpus": 1.0, "disk": 1 << 30}


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Ratios of medians, p99, and writes a second."""
    with stage() as s:
        (tenant,) = s.names("write", 1)
        spec = s.changed(rpo=0, limits=LIMITS)
        s.up(tenant, spec)
        s.box.eventually(lambda: _written(s, tenant), "a first confirmed write")
        with _parts(s, tenant) as parts:
            for _ in range(WARM_UP):
                parts.round()
            parts.forget()
            for _ in range(40 if quick else PAIRS):
                parts.round()
        yield from _latencies(parts)
        yield from _throughput(s, tenant, 2 if quick else LOAD_S)


def _written(s: Stage, tenant: str) -> bool:
    return s.box.tenant(tenant, "POST", "/rows", ROW)[0] == 200


@dataclass
class _Parts:
    """What is asked in turns; seconds of each."""

    calls: dict[str, Callable[[], None]]
    before: dict[str, Callable[[], None]]
    took: dict[str, list[float]] = field(default_factory=dict)

    def round(self) -> None:
        for name, call in self.calls.items():
            self.before.get(name, lambda: None)()
            began = time.perf_counter()
            call()
            self.took.setdefault(name, []).append(time.perf_counter() - began)

    def forget(self) -> None:
        self.took.clear()

    def ms(self, name: str, share: float) -> float:
        return quantile(self.took[name], share) * 1e3


@contextmanager
def _parts(s: Stage, tenant: str) -> Iterator[_Parts]:
    volume = s.volume(tenant)
    store = s.minio.store(s.bucket, "fleet/")
    key = keys.owner(tenant)
    sidecar, door = _Unix(volume / "meta" / config.SOCKET), _Unix(volume / "run" / "agent.sock")
    host, _, port = s.box.gateway.removeprefix("http://").partition(":")
    front = http.client.HTTPConnection(host, int(port), timeout=60)
    db = _open(volume / "data" / DATABASE)
    numbers = itertools.count()

    def commit() -> None:
        db.execute("INSERT INTO rows (body) VALUES (?)", (ROW,))

    def sync_and_get() -> None:
        _sync(sidecar)
        store.get(key)

    def commit_and_durable() -> None:
        commit()
        _asked(door, "POST", "/durable", b"")

    def write() -> None:
        _asked(front, "POST", f"/t/{tenant}/rows", ROW)

    parts = _Parts(
        calls={
            "sync+get": sync_and_get,
            "door": commit_and_durable,
            "write": write,
            "sync": lambda: _sync(sidecar),
            "get": lambda: _get(store, key),
            "put": lambda: _put(store, next(numbers)),
        },
        before={"sync+get": commit, "sync": commit},
    )
    try:
        yield parts
    finally:
        db.close()
        store.close()
        for connection in (sidecar, door, front):
            connection.close()


def _latencies(parts: _Parts) -> Iterator[Figure]:
    peer = parts.ms("sync+get", 0.5)
    raw = {f"{name}_p50_ms": round(parts.ms(name, 0.5), 3) for name in parts.calls}
    raw |= {f"{name}_p99_ms": round(parts.ms(name, 0.99), 3) for name in parts.calls}
    yield Figure("rpo 0 write, by HTTP / sync + GET, p50", parts.ms("write", 0.5) / peer, "", 1.25, "at most", raw)
    yield Figure("commit + POST /durable / sync + GET, p50", parts.ms("door", 0.5) / peer, "", 1.25, "at most")
    yield Figure("rpo 0 write, p99", parts.ms("write", 0.99), "ms")
    yield Figure("rpo 0 write / one small PUT, p50", parts.ms("write", 0.5) / parts.ms("put", 0.5), "")


def _throughput(s: Stage, tenant: str, seconds: int) -> Iterator[Figure]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = string.rep("x", {len(ROW)})\n')
        script.flush()
        for writers in WRITERS:
            rate, p50_ms, p99_ms = _wrk(f"{s.box.gateway}/t/{tenant}/rows", script.name, writers, seconds)
            raw = {"p50_ms": p50_ms, "p99_ms": p99_ms}
            yield Figure(f"rpo 0 writes, {writers} writers", rate, "1/s", raw=raw)


def _wrk(url: str, script: str, connections: int, seconds: int) -> tuple[float, float, float]:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", script, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    shares = {share: float(v) * UNITS[unit] * 1e3 for share, v, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", said)}
    if rate is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    return float(rate[1]), round(shares["50"], 2), round(shares["99"], 2)


class _Unix(http.client.HTTPConnection):
    """HTTP over a socket file, the connection kept."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def _asked(connection: http.client.HTTPConnection, method: str, path: str, body: bytes) -> bytes:
    connection.request(method, path, body)
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200, said
    return said


def _sync(sidecar: _Unix) -> None:
    order = {"path": config.data_path(DATABASE), "wait": True, "timeout": -1}
    said = json.loads(_asked(sidecar, "POST", "/sync", json.dumps(order).encode()))
    # `no_change`: Litestream's own look, once a second, was a moment earlier. The same may happen to either side.
    assert said["status"] in ("synced", "no_change"), said


def _get(store: S3Store, key: str) -> None:
    store.get(key)


def _put(store: S3Store, number: int) -> None:
    store.create(f"bench/{number}", ROW)


def _open(path: Path) -> apsw.Connection:
    """A tenant's file as its own server opens it."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(10_000)
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.pragma("wal_autocheckpoint", 0)
    db.pragma("synchronous", 1)
    return db
