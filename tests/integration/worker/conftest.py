"""A real worker process on loopback, and the node's socket in front of it, scripted by the test."""

import contextlib
import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.testbed.process import free_ports

REPOSITORY = Path(__file__).parents[3]
DOCSEARCH = REPOSITORY / "deploy" / "examples" / "docsearch"
PATIENCE_S = 60


class Worker:
    """One tenant's worker: the same folders over any number of processes."""

    def __init__(self, folder: Path, app: Path):
        self.data = folder / "data"
        self.app = app
        self.log = folder / "worker.log"
        self.door: Path | None = None
        self.rpo = "1s"
        self.process: subprocess.Popen | None = None
        self.client: httpx.Client | None = None

    def start(self, *, ready: bool = True) -> "Worker":
        port = free_port()
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "NODE_DATA": str(self.data),
            "NODE_APP": str(self.app),
            "NODE_HOST": "127.0.0.1",
            "NODE_PORT": str(port),
            "NODE_RPO": self.rpo,
        } | ({"NODE_DOOR": str(self.door)} if self.door else {})
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "node.worker"], env=env, stderr=log, stdout=log)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
        if ready:
            self.until(lambda: self.get("/readyz").status_code == 200)
        return self

    def until(self, condition):
        """Waits for a condition, bounded; the process must be alive meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if condition():
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)
        raise AssertionError(f"not within {PATIENCE_S} s; {self.log.read_text()}")

    def get(self, path, **kwargs):
        return self.client.get(path, **kwargs)

    def post(self, path, json=None, **kwargs):
        return self.client.post(path, json=json, **kwargs)

    def run(self, workflow, input=None, id=None):
        body = {"workflow": workflow} | ({"input": input} if input is not None else {}) | ({"id": id} if id else {})
        return self.post("/v1/runs", body)

    def history(self, run_id):
        return self.get(f"/v1/runs/{run_id}/history").json()["events"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.close()

    def stop(self, timeout_s=PATIENCE_S):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


class Door(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A node's socket. `status` is what POST /durable answers; it does so only while `open` is set."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path):
        self.status = 200
        self.calls = 0
        self.wakes = []
        self.open = threading.Event()
        self.open.set()
        super().__init__(str(path), _Answer)


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/wake-at":
            self.server.wakes.append(json.loads(body)["at"])
        else:
            self.server.calls += 1
            self.server.open.wait()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def free_port():
    return free_ports(1)[0]


@pytest.fixture
def worker(tmp_path):
    """A worker with the code in `tenant/app.py`, not started yet."""
    worker = Worker(tmp_path, Path(__file__).parent / "tenant")
    yield worker
    if worker.process is not None and worker.process.poll() is None:
        worker.kill()


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """A started worker that a module's tests share: they only ask for what is refused."""
    worker = Worker(tmp_path_factory.mktemp("refusing"), Path(__file__).parent / "tenant").start()
    yield worker
    worker.kill()


@pytest.fixture(scope="module")
def refusing_docsearch(tmp_path_factory):
    """A started docsearch that a module's tests share: they only ask for what is refused or finds nothing."""
    worker = Worker(tmp_path_factory.mktemp("refusing"), DOCSEARCH).start()
    yield worker
    worker.kill()


@pytest.fixture
def docsearch(worker):
    worker.app = DOCSEARCH
    return worker


@pytest.fixture
def door(tmp_path):
    with Door(tmp_path / "agent.sock") as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        yield door
        door.open.set()
        door.shutdown()
