"""A planned move under load: the time without an answer, against its two containers stopped and started by the SDK."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import shutil
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

from node.agent.apps import Apps
from node.agent.runtime import network
from node.bucket.spec import TenantSpec
from tests.bench.figures import Figure, quantile
from tests.bench.peer import SIDECAR_STOP_S, WORKER_STOP_S, Pair, Peer
from tests.bench.stage import APP, DATABASE, timed, wait_answer
from tests.testbed.engine import Engine, running_engine
from tests.testbed.fleet import Fleet, running_fleet
from tests.testbed.stores import minio_binary, running_minio

TENANT = "acme"
CLIENTS_EACH = 2
REST_S = 2.0
TRIALS = 3


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Moves there and back between two machines, each after a stop and start by the SDK."""
    with _fleet() as (fleet, engine):
        spec = _up(fleet)
        with _peer(fleet, engine, spec) as peer:
            yield from _measured(fleet, peer, 4 if quick else 20)


def _measured(fleet: Fleet, peer: _Ended, rounds: int) -> Iterator[Figure]:
    gaps: dict[str, list[float]] = defaultdict(list)
    theirs: list[float] = []
    phases: dict[str, list[float]] = defaultdict(list)
    outcomes: Counter[str] = Counter()
    for number in range(rounds):
        theirs.append(timed(peer.stop_and_start))
        target = "ba"[number % 2]
        with ThreadPoolExecutor(1) as pool, _Load(fleet) as load:
            time.sleep(REST_S)
            began = time.monotonic()
            view = pool.submit(_move, fleet, target).result()
            gaps["until reported"].append(time.monotonic() - began)
            time.sleep(REST_S)
        for gateway, gap in load.gaps().items():
            gaps["at the gateway it leaves" if gateway != target else "at the gateway it goes to"].append(gap)
        gaps["for everyone"].append(load.longest())
        outcomes.update(load.refused)
        for phase in view["phases"]:
            phases[phase["name"]].append(phase["duration_s"])
    ours = gaps["for everyone"]
    raw: dict[str, Any] = {
        "median_s": round(quantile(ours, 0.5), 3),
        "peer_median_s": round(quantile(theirs, 0.5), 3),
        "peer_side_by_side": peer.at_once,
        "all_s": [round(v, 3) for v in ours],
        "peer_all_s": [round(v, 3) for v in theirs],
        "refused": dict(outcomes),
    }
    raw |= {f"{name} s": round(quantile(values, 0.5), 3) for name, values in gaps.items()}
    raw |= {f"phase_{name}_s": round(quantile(values, 0.5), 4) for name, values in phases.items()}
    yield Figure(
        "a move's time without an answer / stop and start", raw["median_s"] / raw["peer_median_s"], "", 1.5, raw=raw
    )


class _Load:
    """Clients of both machines' gateways that write one row after the other. `refused`: other answers than 200."""

    def __init__(self, fleet: Fleet) -> None:
        self._gateways = {machine.name: machine.gateway for machine in fleet.machines}
        self._done = threading.Event()
        self._answers: dict[str, list[float]] = {name: [] for name in self._gateways}
        self.refused: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._ask, args=(name,)) for name in self._gateways for _ in range(CLIENTS_EACH)
        ]

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, gateway: str) -> None:
        parts = urlsplit(self._gateways[gateway])
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        while not self._done.is_set():
            try:
                connection.request("POST", f"/t/{TENANT}/rows", b"x" * 100)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    self._answers[gateway].append(time.monotonic())
                else:
                    self.refused[f"{answer.status} {json.loads(body).get('reason', body[:80])}"] += 1
            except (OSError, http.client.HTTPException) as e:
                self.refused[type(e).__name__] += 1
                connection.close()
            time.sleep(0.005)
        connection.close()

    def gaps(self) -> dict[str, float]:
        """The longest time between two good answers at each gateway."""
        return {name: _longest(sorted(times)) for name, times in self._answers.items()}

    def longest(self) -> float:
        """The longest time between two good answers, whoever got them."""
        return _longest(sorted(t for times in self._answers.values() for t in times))


def _longest(times: list[float]) -> float:
    return max(b - a for a, b in itertools.pairwise(times))


class _Ended:
    """The peer: its two containers, stopped and started again."""

    def __init__(self, peer: Peer, pair: Pair, engine: Engine) -> None:
        self._peer, self._pair = peer, pair
        self._client = engine.client(timeout_s=120)
        self._pool = ThreadPoolExecutor(2)
        self.at_once = False
        peer.up(pair, at_once=True)
        took = {False: [0.0] * TRIALS, True: [0.0] * TRIALS}
        for number in range(TRIALS):
            for self.at_once in (False, True):
                time.sleep(REST_S)
                took[self.at_once][number] = timed(self.stop_and_start)
        self.at_once = min(took[True]) <= min(took[False])

    def stop_and_start(self) -> None:
        """Until the worker answers."""
        api = self._client.api
        stops = [(self._pair.worker, WORKER_STOP_S), (self._pair.sidecar, SIDECAR_STOP_S)]
        self._each(lambda name, limit: api.stop(name, timeout=limit), stops)
        self._each(lambda name, _: api.start(name), stops)
        networks = api.inspect_container(self._pair.worker)["NetworkSettings"]["Networks"]
        address = next(n["IPAddress"] for n in networks.values() if n["IPAddress"])
        wait_answer(f"http://{address}:{self._pair.port}/healthz")

    def _each(self, call: Callable[[str, int], object], what: list[tuple[str, int]]) -> None:
        if self.at_once:
            for future in [self._pool.submit(call, name, limit_s) for name, limit_s in what]:
                future.result()
        else:
            for name, limit_s in what:
                call(name, limit_s)


@contextlib.contextmanager
def _peer(fleet: Fleet, engine: Engine, spec: TenantSpec) -> Iterator[_Ended]:
    """The pair on the run's own engine, beside the machines'."""
    name = "fleet-move-peer"
    folder = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/var/tmp"))
    client = engine.client()
    bridges = network.bridges(name)
    for bridge in (bridges.open, bridges.closed):
        made = network.options(bridge, name, subnet="")
        del made["ipam"]  # a range of the engine's own choice
        client.networks.create(made.pop("name"), **made)
    bucket, _, prefix = fleet.env["FLEET_BUCKET"].removeprefix("s3://").partition("/")
    if spec.app:
        Apps(fleet.minio.store(bucket, f"{prefix}/"), folder / "apps").fetch(spec.app)
    box = SimpleNamespace(fleet_name=name, state=folder, env=fleet.env)
    peer = Peer(cast("Any", SimpleNamespace(engine=engine, box=box, minio=fleet.minio, bucket=bucket)), folder / "peer")
    try:
        yield _Ended(peer, peer.pair("peer", spec), engine)
    finally:
        engine.empty()
        peer.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _fleet() -> Iterator[tuple[Fleet, Engine]]:
    binary = minio_binary()
    assert binary is not None, "no MinIO here: ./tests/run builds it"
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fb-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        engine = stack.enter_context(running_engine())
        engine.build_images()
        minio = stack.enter_context(running_minio(folder / "store", binary))
        yield stack.enter_context(running_fleet(folder, engine, minio, machines=2, ttl_s=15, margin_s=3)), engine


def _up(fleet: Fleet) -> TenantSpec:
    words = ("--app", str(APP), "--db", DATABASE, "--disk", "64m", "--node", "a")
    view = fleet.json("up", TENANT, *words)
    for machine in fleet.machines:
        wait_answer(f"{machine.gateway}/t/{TENANT}/healthz")
    return TenantSpec.model_validate_json(json.dumps(view["spec"]))


def _move(fleet: Fleet, target: str) -> dict[str, Any]:
    """Ask for it, and wait until it runs there."""
    status, view = fleet.api("GET", f"/v1/tenants/{TENANT}")
    assert status == 200, view
    body = {"spec": {**view["spec"], "node": target}, "secrets": {}}
    status, view = fleet.api("PUT", f"/v1/tenants/{TENANT}?wait=25s", body)
    assert status in (200, 202), view
    found = fleet.wait_state(TENANT, "running")
    assert found["node"] == target, found
    return found
