"""A controller and a fake agent as processes of their own, on a real store: what `kill -9` is for."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import httpx
from cryptography.fernet import Fernet

from tests.testbed.process import Process, answers, free_ports, wait_until
from tests.testbed.stores import StoreServer

TOKEN = "secret-of-processes"
ROOT = Path(__file__).parents[3]


class Processes:
    """Both can be killed and started again; their ports stay the same."""

    def __init__(self, minio: StoreServer, folder: Path):
        self.bucket = minio.new_bucket()
        self.minio = minio
        self.port, self.agent_port, self.second_port = free_ports(3)
        self.folder = folder
        self.environment = env = {
            **minio.environment(self.bucket),
            "FLEET_TOKEN": TOKEN,
            "FLEET_SECRETS_KEY": Fernet.generate_key().decode(),
            "FLEET_CONTROLLER_LISTEN": f"127.0.0.1:{self.port}",
            "PYTHONPATH": str(ROOT),
        }
        self.controller = Process(
            [sys.executable, "-m", "fleet.app"], log=folder / "controller.log", environment=env, cwd=folder
        )
        self.agent = Process(
            [sys.executable, "-m", "tests.integration.controller.fakeagent", "n1", str(self.agent_port)],
            log=folder / "agent.log",
            environment=env,
            cwd=folder,
        )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=90,
            trust_env=False,
        )

    def start_agent(self):
        self.agent.start(answers(self.agent_port, "/v1/state", 401))

    def start_controller(self):
        self.controller.start(answers(self.port, "/readyz", 200))

    @contextlib.contextmanager
    def second(self):
        """One more controller: its port and a client of it."""
        port = self.second_port
        process = Process(
            [sys.executable, "-m", "fleet.app"],
            log=self.folder / "second.log",
            environment={**self.environment, "FLEET_CONTROLLER_LISTEN": f"127.0.0.1:{port}"},
            cwd=self.folder,
        )
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=90, trust_env=False) as client:
            try:
                process.start(answers(port, "/readyz", 200))
                yield port, client
            finally:
                process.kill()

    def until_ready(self):
        def ready():
            nodes = self.client.get("/v1/nodes").json()["nodes"]
            return bool(nodes) and nodes[0]["state"] == "ready"

        wait_until(ready, "the node to be ready")

    def get(self, tenant):
        return self.client.get(f"/v1/tenants/{tenant}").json()


@contextlib.contextmanager
def running(minio: StoreServer, folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    both = Processes(minio, folder)
    try:
        both.start_agent()
        both.start_controller()
        both.until_ready()
        yield both
    finally:
        both.client.close()
        both.controller.kill()
        both.agent.kill()
