"""A controller and fake agents in this process, over real HTTP, on a store in memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from cryptography.fernet import Fernet

from fleet.app import Controller
from fleet.metrics import Metrics
from fleet.watch import Every
from node.bucket.memory import MemoryStore
from node.settings import Settings
from tests.integration.controller.fakeagent import FakeAgent

TOKEN, READER = "secret", "reader"
SPEC = {"image": "server:1", "databases": ["app.db"]}


QUICK_LOOKS = Every(soon_s=0.1, leases_s=0.2, specs_s=0.2, owners_s=0.2, standby_s=0.2)
QUICK_LEASE = {"ttl_s": 1.5, "margin_s": 0.5}


class Served:
    """An ASGI app on a thread of its own, with its own event loop."""

    def __init__(self, app, port=0):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self.loop = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        async def serve():
            self.loop = asyncio.get_running_loop()
            await self.server.serve(sockets=[self.socket])

        asyncio.run(serve())

    def start(self):
        self.thread.start()
        for _ in range(6000):
            if self.server.started:
                return self
            self.thread.join(0.01)
        raise AssertionError("the server did not start")

    def call(self, what):
        """Run a function on the server's loop."""
        done = threading.Event()

        def run():
            what()
            done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(60)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(15)
        self.socket.close()


@dataclass
class Fleet:
    """A controller with its client, and the fake agents that joined."""

    store: object
    settings: Settings
    controller: Controller = None
    served: Served = None
    client: httpx.Client = None
    agents: dict = field(default_factory=dict)

    def join(self, node, **options):
        agent = FakeAgent(node, self.store, token=TOKEN, **options)
        self._serve(agent, 0)
        agent.join(agent.served.url)
        return agent

    def restart_agent(self, node):
        """The agent's process ends and another begins in the same session, knowing nothing."""
        old = self.agents[node]
        self._end(old)
        new = FakeAgent(node, self.store, token=TOKEN)
        new.session, new.url, new.lease = old.session, old.url, old.lease
        new.keep()
        self._serve(new, old.served.port)
        return new

    def _serve(self, agent, port):
        agent.served = Served(agent.app, port).start()
        self.agents[agent.node] = agent

    def _end(self, agent):
        agent.served.call(agent.close)
        agent.served.stop()

    def start(self, me=None, every=QUICK_LOOKS, store=None):
        self.controller = Controller(self.settings, store or self.store, Metrics(), every, me)
        self.served = Served(self.controller.app).start()
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.client = httpx.Client(base_url=self.served.url, headers=headers, timeout=90, trust_env=False)
        self.until(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def stop(self):
        if self.client is not None:
            self.client.close()
            self.served.stop()
            self.client = None

    def until(self, what, timeout_s=60):
        """Poll until true; a bounded wait for what happens elsewhere."""
        pause = threading.Event()
        for _ in range(int(timeout_s / 0.02)):
            if found := what():
                return found
            pause.wait(0.02)
        raise AssertionError("it did not come true in time")

    def up(self, tenant, wait="60s", secrets=None, **changes):
        body = {"spec": {**SPEC, **changes}, **({"secrets": secrets} if secrets else {})}
        return self.client.put(f"/v1/tenants/{tenant}", params={"wait": wait}, json=body)

    def states(self):
        """The machines' states, by name of the machine."""
        return [node["state"] for node in self.client.get("/v1/nodes").json()["nodes"]]

    def get(self, tenant):
        return self.client.get(f"/v1/tenants/{tenant}").json()


@pytest.fixture
def bare():
    """No controller and no agent yet."""
    settings = Settings(
        token=[TOKEN], token_readonly=[READER], secrets_key=Fernet.generate_key().decode(), bucket="s3://none"
    )
    fleet = Fleet(MemoryStore(), settings)
    yield fleet
    fleet.stop()
    for agent in fleet.agents.values():
        fleet._end(agent)


@pytest.fixture
def fleet(bare):
    """One agent `n1`, and a controller that has read the bucket."""
    bare.join("n1")
    bare.start()
    bare.until(lambda: bare.client.get("/v1/nodes").json()["nodes"][0]["state"] == "ready")
    return bare


@pytest.fixture
def pair(bare):
    """Two machines and a controller."""
    for node in ("n1", "n2"):
        bare.join(node)
    bare.start()
    bare.until(lambda: bare.states() == ["ready", "ready"])
    return bare
