"""A controller's cold start from a bucket with 10,000 tenants, with and without its index; what it asks at rest."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet.watch import Every
from node.bucket import keys
from node.bucket.errors import Missing
from node.bucket.records import Record
from node.bucket.s3 import S3Store
from node.bucket.spec import TenantSpec
from tests.bench.figures import Figure, quantile
from tests.bench.reconcile import NODES, _lease, _owner, _spec
from tests.integration.controller.conftest import TOKEN, Served
from tests.integration.controller.fakeagent import FakeAgent
from tests.testbed.process import Process, answers, free_ports, wait_until
from tests.testbed.stores import StoreServer, minio_binary, running_minio

WRITERS = 16
MACHINES = 3
REST_S = 60.0
DAY_S = 86400.0


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Seconds from the start of the process until it is ready: everything is known and it may act."""
    binary = minio_binary()
    assert binary is not None, "no MinIO here: ./tests/run builds it"
    tenants, rounds = (1_000, 1) if quick else (10_000, 3)
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        minio = stack.enter_context(running_minio(folder / "store", binary))
        bucket = minio.new_bucket()
        store = minio.store(bucket)
        stack.callback(store.close)
        _fill(store, tenants)
        started = _Started(minio, bucket, folder)
        stack.callback(started.end)
        without = [started.take()]  # once: there is no bound on it
        wait_until(lambda: _there(store), "an index", timeout_s=120)
        with_index = [started.take() for _ in range(rounds)]
        yield _figure(f"cold start, {tenants} tenants, with the index", with_index, 10.0)
        yield _figure(f"cold start, {tenants} tenants, no index", without, None)
        started.end()
        yield from _at_rest(stack, minio, folder, REST_S / 4 if quick else REST_S)


def _fill(store: S3Store, tenants: int) -> None:
    spec = TenantSpec(image="server:1", databases=("app.db",), env={"REGION": "eu", "LEVEL": "info"})
    records: list[tuple[str, Record]] = [(keys.node(f"n{i}"), _lease(f"n{i}")) for i in range(NODES)]
    gone = {"state": "gone", "url": "http://127.0.0.1:9"}  # nobody is asked for a report: the start alone is measured
    records = [(key, lease.model_copy(update=gone)) for key, lease in records]
    for number in range(tenants):
        tenant = f"tenant-{number:05d}"
        records.append((keys.spec(tenant), _spec(tenant, spec).model_copy(update={"want": "down"})))
        owner = _owner(tenant, f"n{number % NODES}").model_copy(update={"state": "released"})
        records.append((keys.owner(tenant), owner))

    def put(item: tuple[str, Record]) -> None:
        key, record = item
        store.create(key, record.model_copy(update={"nonce": secrets.token_hex(16)}).encode())

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(put, records))


def _machines(stack: contextlib.ExitStack, store: S3Store) -> None:
    """Some that live: they renew their leases and have no tenant."""
    for number in range(MACHINES):
        agent = FakeAgent(f"living{number}", store, token=TOKEN)
        served = Served(agent.app).start()
        stack.callback(served.stop)
        stack.callback(served.call, agent.close)
        agent.join(served.url)


class _Started:
    """A controller that is killed and started again; its port stays the same."""

    def __init__(self, minio: StoreServer, bucket: str, folder: Path) -> None:
        (self._port,) = free_ports(1)
        environment = {
            **minio.environment(bucket),
            "FLEET_TOKEN": TOKEN,
            "FLEET_CONTROLLER_LISTEN": f"127.0.0.1:{self._port}",
            "FLEET_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "fleet.app"]
        self._process = Process(command, log=folder / "controller.log", environment=environment, cwd=Path.cwd())

    def take(self) -> tuple[float, float]:
        """Kill it, start it, and answer how many seconds it took to be ready, and how many of CPU."""
        self.end()
        ready = answers(self._port, "/readyz", 200)
        began = time.perf_counter()
        self._process.start(lambda: True)
        wait_until(ready, "the controller to be ready", timeout_s=600, every_s=0.02)
        took_s = time.perf_counter() - began
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return took_s, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Kill it."""
        self._process.kill()

    def _get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self._port}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return str(answer.read().decode())

    def ready_nodes(self) -> int:
        """How many machines may take tenants."""
        return int(json.loads(self._get("/readyz"))["nodes_ready"])

    def requests(self) -> dict[str, float]:
        """How many requests it made so far, by operation."""
        text = self._get("/metrics")
        found = re.findall(r'fleet_bucket_request_duration_seconds_count\{operation="(\w+)"\} ([\d.e+]+)', text)
        return {operation: float(count) for operation, count in found}


def _there(store: S3Store) -> bool:
    try:
        store.head(keys.INDEX)
    except Missing:
        return False
    return True


def _figure(name: str, took: list[tuple[float, float]], bound: float | None) -> Figure:
    raw = {"all_s": [round(t, 2) for t, _ in took], "cpu_s": [round(c, 2) for _, c in took], "load": os.getloadavg()[0]}
    return Figure(name, quantile([t for t, _ in took], 0.5), "s", bound, raw=raw)


def _at_rest(stack: contextlib.ExitStack, minio: StoreServer, folder: Path, span_s: float) -> Iterator[Figure]:
    """What one controller that acts asks in a day with nothing to do, and what more for each 1,000 tenants.

    The looks that are further apart than the span are added as they are set.
    """
    bucket = minio.new_bucket()
    store = minio.store(bucket)
    stack.callback(store.close)
    _machines(stack, store)
    started = _Started(minio, bucket, folder)
    stack.callback(started.end)
    started.take()
    wait_until(lambda: started.ready_nodes() == MACHINES, "the machines to be ready", timeout_s=120)
    time.sleep(2 * Every().soon_s)  # what is looked at while something is not ready
    before = started.requests()
    time.sleep(span_s)
    after = started.requests()
    every = Every()
    slow = DAY_S / every.specs_s + DAY_S / every.owners_s
    seen = {name: (after[name] - before.get(name, 0.0)) / span_s * DAY_S for name in after}
    raw = {"machines": MACHINES, "span_s": span_s, **{name: round(count) for name, count in seen.items() if count}}
    yield Figure("requests a day of a controller at rest", sum(seen.values()) + slow, "requests", raw=raw)
    yield Figure("and more for each 1,000 tenants", slow, "LIST")
