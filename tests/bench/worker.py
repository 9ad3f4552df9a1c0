"""The worker: memory and time to its first answer, in its container and without; and its steps a second at rpo 0.

The container is the product's own, with a tenant's usual limits. What an engine itself takes to start one is measured
beside it, with a Python that answers at once.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import secrets
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from node.agent.ports import Volume, WorkerSpec
from node.agent.runtime.docker import DockerRuntime
from node.agent.runtime.uids import Uids
from node.agent.runtime.volumes import DiskVolumes
from node.agent.walk import START_CPUS
from node.agent.workerspec import DOOR
from node.bucket.spec import Limits
from tests.bench import httpsteps
from tests.bench.figures import Figure, quantile
from tests.bench.programs.memory import Memory
from tests.testbed.engine import Engine, running_engine

APP = Path(__file__).parent / "ten"
ROUNDS = 10
RUNS = 100
IDLE_S = 2.0
PATIENCE_S = 60.0
PORT = 8080
DISK_BYTES = 64 << 20
BARE = "fleet-bench/python:latest"
# The least that can answer: what is left is the engine's and Python's own.
ANSWER = f"""
import socket
with socket.create_server(("0.0.0.0", {PORT})) as server:
    while True:
        with server.accept()[0] as one:
            one.recv(4096)
            one.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{{}}")
"""
_ROOT = Path(__file__).parents[2]
_MB = 1e6


def run(*, quick: bool) -> Iterator[Figure]:
    """The container, the process alone, and the steps."""
    rounds = 3 if quick else ROUNDS
    with _containers() as containers:
        yield from _in_containers(containers, rounds)
    yield from _alone(rounds)
    yield from httpsteps.figures(quick=quick)


@dataclass(frozen=True)
class _Start:
    """One start. Seconds from `docker start`, and from the exec of the server, to the first answer, and what
    of that the server computed.
    """

    call_s: float
    exec_s: float
    cpu_s: float
    memory: Memory
    after_runs: Memory | None = None


def _in_containers(containers: _Containers, rounds: int) -> Iterator[Figure]:
    usual = Limits()
    found: dict[str, list[_Start]] = {"worker": [], "bare": [], "held back": []}
    for _ in range(rounds):
        found["worker"].append(containers.worker(START_CPUS))
        found["bare"].append(containers.bare(START_CPUS))
        found["held back"].append(containers.worker(usual.cpus))
    for name, how, bound in (("worker", "as its node starts it", 250.0), ("held back", "never more", None)):
        values = [start.exec_s * 1e3 for start in found[name]]
        raw = {"runs": [round(each) for each in values], "cpu_ms": _cpu_ms(found[name])}
        what = f"worker of {usual.cpus:g} CPU, {how}: exec to first answer"
        yield Figure(what, quantile(values, 0.5), "ms", bound, raw=raw)
    whole, floor = ([start.call_s * 1e3 for start in found[name]] for name in ("worker", "bare"))
    raw = {"runs": [round(each) for each in whole], "bare": [round(each) for each in floor]}
    yield Figure("docker start to the worker's first answer", quantile(whole, 0.5), "ms", raw=raw)
    yield Figure("docker start to a bare Python's answer", quantile(floor, 0.5), "ms")
    yield Figure("the worker's own share", quantile(whole, 0.5) - quantile(floor, 0.5), "ms")
    memory = [start.memory.private_dirty / _MB for start in found["worker"]]
    bare = [start.memory.private_dirty / _MB for start in found["bare"]]
    sizes = {"runs": [round(each, 2) for each in memory]}
    sizes["bare_python_mb"] = [round(each, 2) for each in bare]
    yield Figure("worker: private dirty, idle", quantile(memory, 0.5), "MB", 20, raw=sizes)
    busy = [start.after_runs.private_dirty / _MB for start in found["worker"] if start.after_runs is not None]
    yield Figure(f"worker: private dirty after {RUNS} runs of ten steps", quantile(busy, 0.5), "MB")


def _alone(rounds: int) -> Iterator[Figure]:
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-worker-", dir="/var/tmp") as folder:
            found.append(_process(Path(folder)))
    values = [start.exec_s * 1e3 for start in found]
    raw = {"runs": [round(each) for each in values], "cpu_ms": _cpu_ms(found)}
    yield Figure("worker without a container: exec to first answer", quantile(values, 0.5), "ms", raw=raw)
    memory = [start.memory.private_dirty / _MB for start in found]
    yield Figure("worker without a container: private dirty, idle", quantile(memory, 0.5), "MB")


def _process(folder: Path) -> _Start:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    told = {"NODE_DATA": str(folder), "NODE_APP": str(APP), "NODE_PORT": str(port), "NODE_RPO": "1s"}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1", **told}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "node.worker"], env=env, stderr=subprocess.DEVNULL)
    try:
        _answered("127.0.0.1", port)
        took, cpu_s = time.perf_counter() - began, _cpu_s(process.pid)
        time.sleep(IDLE_S)
        return _Start(took, took, cpu_s, Memory.of(process.pid))
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True)
class _Containers:
    """Workers as the node makes them, each with folders of its own."""

    engine: Engine
    runtime: DockerRuntime
    volumes: DiskVolumes
    uids: Uids

    def worker(self, start_cpus: float) -> _Start:
        """The worker with the ten steps, and as many processors while it starts."""
        env = {"NODE_DATA": "/data", "NODE_PORT": str(PORT), "NODE_RPO": "1s", "NODE_DOOR": DOOR, "NODE_APP": "/app"}
        with self._spec() as spec, _door(spec.volume.run / Path(DOOR).name):
            return self._start(replace(spec, app=APP, env=env), start_cpus, runs=RUNS)

    def bare(self, start_cpus: float) -> _Start:
        """A Python that answers at once."""
        with self._spec() as spec:
            return self._start(replace(spec, image=BARE, command=("-I", "-S", "-c", ANSWER)), start_cpus, runs=0)

    @contextlib.contextmanager
    def _spec(self) -> Iterator[WorkerSpec]:
        tenant, usual = f"w{secrets.token_hex(4)}", Limits()
        uid = self.uids.of(tenant)
        volume: Volume = self.volumes.ensure(tenant, uid, DISK_BYTES)
        try:
            yield WorkerSpec(
                tenant=tenant, epoch=1, session=1, generation=1, image="fleet/worker:latest", uid=uid, volume=volume,
                port=PORT, memory_bytes=usual.memory, cpus=usual.cpus, pids=usual.pids,
            )  # fmt: skip
        finally:
            self.volumes.discard(tenant)

    def _start(self, spec: WorkerSpec, start_cpus: float, runs: int) -> _Start:
        name = self.runtime.create(spec)
        try:
            began = time.perf_counter()
            container = self.runtime.start(name)
            address = container.address
            self.runtime.allow(container, start_cpus)
            _answered(address, PORT)
            call_s, at = time.perf_counter() - began, time.clock_gettime(time.CLOCK_BOOTTIME)
            self.runtime.allow(container, spec.cpus)
            pid = self._server(name)
            exec_s, cpu_s = at - _began(pid), _cpu_s(pid)
            time.sleep(IDLE_S)
            memory = Memory.of(pid)
            if not runs:
                return _Start(call_s, exec_s, cpu_s, memory)
            with contextlib.closing(http.client.HTTPConnection(address, PORT, timeout=30)) as connection:
                for _ in range(runs):
                    httpsteps.one_run(connection, "")
            return _Start(call_s, exec_s, cpu_s, memory, Memory.of(pid))
        finally:
            self.runtime.remove(name)

    def _server(self, name: str) -> int:
        """The container's first process is the engine's init; its child is the server."""
        client = self.engine.client()
        try:
            pid = int(client.api.inspect_container(name)["State"]["Pid"])
        finally:
            client.close()
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@contextlib.contextmanager
def _containers() -> Iterator[_Containers]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-worker-", dir="/var/tmp", ignore_cleanup_errors=True) as folder,
        running_engine() as engine,
    ):
        engine.build_images()
        _bare_image(engine)
        runtime, volumes = DockerRuntime(f"fb-{secrets.token_hex(4)}", engine=engine.host), DiskVolumes(Path(folder))
        runtime.ensure()
        try:
            yield _Containers(engine, runtime, volumes, Uids(Path(folder)))
        finally:
            runtime.teardown()


def _bare_image(engine: Engine) -> None:
    """The worker's image with Python itself as what it runs."""
    client = engine.client()
    made = client.api.create_container("fleet/worker:latest", entrypoint=["python3"], command=[])
    repository, _, tag = BARE.partition(":")
    client.api.commit(made["Id"], repository=repository, tag=tag)
    client.api.remove_container(made["Id"])
    client.close()


def _cpu_ms(found: list[_Start]) -> list[int]:
    return [round(start.cpu_s * 1e3) for start in found]


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, to the hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _began(pid: int) -> float:
    """When a process was made, in seconds of the machine's clock since boot; up to a hundredth too early."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _answered(host: str, port: int) -> None:
    """Ask until it says that it is ready. Raises AssertionError."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        connection = http.client.HTTPConnection(host, port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                connection.close()
                return
        connection.close()
        time.sleep(0.002)
    raise AssertionError(f"{host}:{port} is not ready within {PATIENCE_S} s")


class _Door(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


class _Yes(http.server.BaseHTTPRequestHandler):
    """The node's socket: whatever it is told is fine."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _door(path: Path) -> Iterator[None]:
    with _Door(str(path), _Yes) as door:
        path.chmod(0o666)
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield
        door.shutdown()
