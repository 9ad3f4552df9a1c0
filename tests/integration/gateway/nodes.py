"""Several nodes as far as requests go: a gateway each, its door and its finder, and one bucket for all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from node.agent.finder import Finder
from node.agent.gateway.config import Files, GatewayConfig
from node.agent.gateway.door import GatewayDoor
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.ports import Route
from node.bucket import cas, keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Capacity, Lease, Owner, OwnerState
from tests.integration.gateway.parts import UID, HostProcess, Upstream, free_port

T = TypeVar("T")
KEY = hashlib.sha256(b"a fleet's").hexdigest()
TTL_S = 15.0


class CountingStore(MemoryStore):
    """Counts what is asked of it, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.lists = 0

    def get(self, key: str) -> Any:
        self.reads += 1
        return super().get(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Any:
        self.lists += 1
        return super().list(prefix, start_after=start_after, limit=limit)


@dataclass
class Bucket:
    """The records of tenants and machines, written as their nodes would."""

    store: CountingStore = field(default_factory=CountingStore)
    _sessions: dict[str, int] = field(default_factory=dict)

    def lease(self, node: str, gateway_url: str, *, session: int = 1, state: str = "active") -> None:
        capacity = Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1)
        self._sessions[node] = session
        record = Lease(
            nonce=cas.new_nonce(), node=node, session=session, seq=1, ttl_s=TTL_S, margin_s=3.0, url="",
            gateway_url=gateway_url, state=state, mode="shared", capacity=capacity,  # type: ignore[arg-type] # of a test
        )  # fmt: skip
        self._write(keys.node(node), record)

    def owner(self, tenant: str, node: str, state: OwnerState = "running", *, epoch: int = 1) -> None:
        record = Owner(
            nonce=cas.new_nonce(), tenant=tenant, epoch=epoch, node=node, session=self._sessions.get(node, 1),
            state=state, data_epoch=epoch, observed_generation=1,
        )  # fmt: skip
        self._write(keys.owner(tenant), record)

    def _write(self, key: str, record: Any) -> None:
        held = cas.read(self.store, key, type(record))
        cas.write(self.store, key, record, held.etag if held else None, give_up=lambda _: None)


class Nodes:
    """The loop that all of them share, in a thread; `at` makes a node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bucket = Bucket()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._nodes: list[StandIn] = []

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the nodes' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def at(self, name: str, **changes: Any) -> StandIn:
        """A node that listens on a port of its own and is in the bucket."""
        node = StandIn(self, name, changes)
        self._nodes.append(node)
        node.open()
        return node

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class StandIn:
    """One node's gateway with what finds other nodes' tenants for it."""

    def __init__(self, nodes: Nodes, name: str, changes: dict[str, Any]) -> None:
        self.nodes, self.name = nodes, name
        self.port = free_port()
        scheme = "https" if "tls_cert" in changes else "http"
        self.url = f"{scheme}://{changes.pop('host', '127.0.0.1')}:{self.port}"
        folder = nodes.folder / name
        settings = {"domain": "fleet.test", "hold_s": 5, "node": name, "peer_keys": (KEY,), **changes}
        self.config = GatewayConfig(f"127.0.0.1:{self.port}", **settings)
        self.process = HostProcess(folder)
        self.gateway = HaproxyGateway(self.config, self.process, folder, UID)
        self.finder = Finder(nodes.bucket.store, self.gateway, name, self.url)
        self.door = GatewayDoor(Files(folder).door, UID, self.finder.ask, self.finder.doubt)
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._keeping: asyncio.Task[None] | None = None

    def open(self) -> None:
        self.gateway.ensure()
        self.nodes.bucket.lease(self.name, self.url)
        self.nodes.do(self._open())

    async def _open(self) -> None:
        await self.door.open()
        self._keeping = asyncio.create_task(self.finder.keep())

    async def _close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        await self.door.close()
        await self.finder.close()

    def close(self) -> None:
        self.client.close()
        self.nodes.do(self._close())
        self.process.kill()

    def has(self, server: Upstream, token_sha256: str | None = None, *, epoch: int = 1) -> None:
        """The tenant `server.name` runs here, by the records and by the routes."""
        self.gateway.route(server.name, Route(server.address, token_sha256))
        self.nodes.bucket.owner(server.name, self.name, epoch=epoch)

    def until(self, path: str, wanted: Callable[[httpx.Response], bool]) -> httpx.Response:
        """Ask until the answer is as wanted; bounded."""
        last = None
        for _ in range(1200):
            last = self.client.get(path)
            if wanted(last):
                return last
            threading.Event().wait(0.05)
        raise AssertionError(f"{path}: still {last.status_code if last else last} {last.text[:300] if last else ''}")


@contextlib.contextmanager
def several(folder: Path) -> Iterator[Nodes]:
    """Nodes that are gone afterwards."""
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.close()
