"""A killed machine's tenants answer again, against the same pairs of containers made by the SDK on those left."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.bucket import keys
from tests.bench.figures import Figure, quantile
from tests.bench.stage import APP, DATABASE, side_by_side, wait_answer
from tests.testbed.engine import running_engine
from tests.testbed.fleet import Fleet, own_folder, running_fleet
from tests.testbed.host import entering
from tests.testbed.machine import Machine
from tests.testbed.process import FLEET
from tests.testbed.stores import minio_binary, running_minio

TENANTS = 50
TTL_S, MARGIN_S = 15.0, 3.0
PEER_AT_ONCE = (4, 8, 16)
ASKERS = 8
PATIENCE_S = 240.0
FIRST_S = 2.0


def run(*, quick: bool = False) -> Iterator[Figure]:
    """The failover first, then the peer on the same two machines, which have nothing else to do by then."""
    count = 8 if quick else TENANTS
    with _fleet() as fleet:
        names = [f"many-{n}" for n in range(count)]
        spec = _up(fleet, names)
        answers, phases, counted_from = _failover(fleet, names)
        side_by_side(lambda name: _down(fleet, name), names, 4)
        survivors = fleet.machines[1:]
        degrees = PEER_AT_ONCE[:1] if quick else PEER_AT_ONCE
        theirs = {at_once: _peers(fleet, survivors, spec, count, at_once) for at_once in degrees}
    best = min(theirs, key=lambda n: max(theirs[n]))
    beyond = sorted(at - counted_from for at in answers)
    peer = sorted(theirs[best])
    raw: dict[str, Any] = {
        "beyond_s": [round(v, 2) for v in beyond],
        "peer_s": [round(v, 2) for v in peer],
        "peer_last_s_by_at_once_each": {n: round(max(v), 2) for n, v in theirs.items()},
        "first_median_last_s": [round(v, 2) for v in (beyond[0], quantile(beyond, 0.5), beyond[-1])],
        "peer_first_median_last_s": [round(v, 2) for v in (peer[0], quantile(peer, 0.5), peer[-1])],
        **phases,
    }
    yield Figure(f"first of {count} tenants beyond TTL + margin", beyond[0], "s", FIRST_S, raw=raw)
    yield Figure(f"last of {count} tenants beyond TTL + margin / pairs of containers", beyond[-1] / peer[-1], "", 1.5)


def _failover(fleet: Fleet, names: list[str]) -> tuple[list[float], dict[str, Any], float]:
    """Kill the machine that has all of them just after it has renewed its lease; answers each first answer (monotonic
    seconds), the phases, and the moment that TTL + margin had gone by since that renewal."""
    victim, lease = fleet.machines[0], _Lease(fleet)
    asking = _Asking(fleet, names)
    before = lease.read()
    while lease.read()["seq"] == before["seq"]:
        time.sleep(0.01)
    renewed = time.monotonic()
    victim.power_off()
    over = renewed + TTL_S + MARGIN_S
    while lease.read()["state"] != "gone" and time.monotonic() < over + PATIENCE_S:
        time.sleep(0.02)
    revoked = time.monotonic()
    answers = asking.until_all()
    phases: dict[str, list[float]] = defaultdict(list)
    for name in names:
        status, view = fleet.api("GET", f"/v1/tenants/{name}")
        assert status == 200, view
        for phase in view["phases"]:
            phases[phase["name"]].append(phase["duration_s"])
    shown: dict[str, Any] = {"revoked_beyond_s": round(revoked - over, 3)}
    shown |= {f"phase_{n}_s": [round(f(v), 3) for f in (min, statistics.median, max)] for n, v in phases.items()}
    return answers, shown, over


class _Lease:
    """The first machine's lease, as it is in the bucket."""

    def __init__(self, fleet: Fleet) -> None:
        self._client = fleet.minio.client
        self._bucket, _, prefix = fleet.env["FLEET_BUCKET"].removeprefix("s3://").partition("/")
        self._key = f"{prefix}/{keys.node(fleet.machines[0].name)}"

    def read(self) -> dict[str, Any]:
        """What it says now."""
        return dict(json.loads(self._client.get_object(Bucket=self._bucket, Key=self._key)["Body"].read()))


class _Asking:
    """Clients that ask for each tenant, by way of the machines that are left, until it answers."""

    def __init__(self, fleet: Fleet, names: list[str]) -> None:
        self._gateways = [machine.gateway for machine in fleet.machines[1:]]
        self._names = names
        self._first: dict[str, float] = {}

    def until_all(self) -> list[float]:
        """When each answered first. Raises AssertionError when one does not."""
        until = time.monotonic() + PATIENCE_S
        threads = [threading.Thread(target=self._ask, args=(n, until)) for n in range(ASKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        missing = sorted(set(self._names) - set(self._first))
        assert not missing, f"{len(missing)} tenants never answered: {missing}"
        return list(self._first.values())

    def _ask(self, number: int, until: float) -> None:
        turn = 0
        while time.monotonic() < until:
            mine = [name for name in self._names[number::ASKERS] if name not in self._first]
            if not mine:
                return
            for name in mine:
                turn += 1
                if _answers(self._gateways[turn % len(self._gateways)], name):
                    self._first[name] = time.monotonic()
            time.sleep(0.1)


def _answers(gateway: str, tenant: str) -> bool:
    """Whether it has its row."""
    parts = urlsplit(gateway)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("GET", f"/t/{tenant}/rows")
        answer = connection.getresponse()
        return answer.status == 200 and json.loads(answer.read())["rows"] == 1
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _peers(fleet: Fleet, machines: list[Machine], spec: dict[str, Any], count: int, at_once: int) -> list[float]:
    """Seconds until each pair answered, half of them on each machine, both beginning at the same moment."""
    share = count // len(machines)
    running = [_peer(fleet, machine, spec, share, at_once) for machine in machines]
    for one in running:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    took: list[float] = []
    for one in running:
        out, _ = one.communicate(timeout=PATIENCE_S)
        assert one.returncode == 0, out
        took += json.loads(out)
    return took


def _peer(fleet: Fleet, machine: Machine, spec: dict[str, Any], count: int, at_once: int) -> subprocess.Popen[str]:
    secret = fleet.minio.credentials
    told = {
        "host": machine.env["DOCKER_HOST"],
        "fleet_name": machine.fleet_name,
        "state": str(machine.state),
        "endpoint": machine.env["FLEET_S3_ENDPOINT"],
        "bucket": fleet.env["FLEET_BUCKET"].removeprefix("s3://").partition("/")[0],
        "keys": [secret.access_key, secret.secret_key],
        "spec": spec,
        "count": count,
        "at_once": at_once,
    }
    command = [*entering(machine.first), str(FLEET.with_name("python")), "-m", "tests.bench.pairs"]
    # Whoever enters another root of mounts is taken to its top: where this code is must be said.
    env = {**machine.env, "PYTHONPATH": str(Path.cwd())}
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert running.stdin is not None
    running.stdin.write(json.dumps(told) + "\n")
    running.stdin.flush()
    return running


def _up(fleet: Fleet, names: list[str]) -> dict[str, Any]:
    """All on the first machine, each with a row that is in the bucket; answers their spec."""
    for machine in fleet.machines[1:]:
        fleet.fleet("cordon", machine.name)
    words = ("--app", str(APP), "--db", DATABASE, "--disk", "64m", "--rpo", "0")
    first = fleet.json("up", names[0], *words)
    body = {"spec": first["spec"], "secrets": {}}

    def up(name: str) -> None:
        status, view = fleet.api("PUT", f"/v1/tenants/{name}?wait=25s", body)
        assert status in (200, 202), view
        fleet.wait_state(name, "running", timeout_s=PATIENCE_S)
        gateway = fleet.machines[0].gateway
        wait_answer(f"{gateway}/t/{name}/healthz")
        status, said = fleet.request("POST", f"{gateway}/t/{name}/rows", b"x" * 100)
        assert status == 200, said

    side_by_side(up, names, 8)
    for machine in fleet.machines[1:]:
        fleet.fleet("uncordon", machine.name)
    # Their app is on the machines that are left, as it is where a tenant of it has run before.
    for machine in fleet.machines[1:]:
        fleet.fleet("up", f"warm-{machine.name}", *words, "--node", machine.name)
        fleet.fleet("down", f"warm-{machine.name}")
    return dict(first["spec"])


def _down(fleet: Fleet, name: str) -> None:
    status, view = fleet.api("POST", f"/v1/tenants/{name}/stop?wait=25s")
    assert status in (200, 202), view
    fleet.wait_state(name, "released", timeout_s=PATIENCE_S)


@contextlib.contextmanager
def _fleet() -> Iterator[Fleet]:
    binary = minio_binary()
    assert binary is not None, "no MinIO here: ./tests/run builds it"
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(own_folder())
        engine = stack.enter_context(running_engine())
        engine.build_images()
        minio = stack.enter_context(running_minio(folder / "store", binary, everywhere=True))
        yield stack.enter_context(running_fleet(folder, engine, minio, ttl_s=TTL_S, margin_s=MARGIN_S, direct=True))
