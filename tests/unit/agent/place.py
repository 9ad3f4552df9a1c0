"""One tenant on one node, its engine and its custody replaced: what the tests of its steps stand on."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from node.agent.custody.errors import Unconfirmed
from node.agent.custody.values import Claim, Prepared, Settled
from node.agent.node import Head, Node
from node.agent.ports import Container, RuntimeFailed, SidecarSpec, Volume, WorkerSpec
from node.agent.tenant import Tenant
from node.agent.walk import Parts
from node.api import Assignment
from node.bucket.records import Capacity
from node.bucket.spec import TenantSpec

SPEC = TenantSpec(image="img", databases=("app.db",))
UP = Assignment(tenant="acme", generation=1, want="up", spec=SPEC)
NAME = "acme-worker"
CLAIM = Claim("acme", 3, 3, 7, "kept", ("app.db",), 1.0, 3600.0, 1, "kept")


def failed() -> RuntimeFailed:
    return RuntimeFailed("the engine is away", reason="no_engine", retryable=True)


@dataclass
class Engine:
    """Containers by name. `gates` hold a call up, `refuse` lets a call fail so many times."""

    found: dict[str, Container] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    reached: dict[str, threading.Event] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    made: int = 0
    allowed: list[tuple[str, float]] = field(default_factory=list)
    secrets: dict[str, str] | None = None  # that the last worker was made with

    def _called(self, call: str) -> None:
        if call in self.gates:
            self.reached[call].set()
            assert self.gates[call].wait(30)
        if self.refuse.get(call, 0):
            self.refuse[call] -= 1
            raise failed()

    def gate(self, call: str) -> threading.Event:
        self.gates[call], self.reached[call] = threading.Event(), threading.Event()
        return self.gates[call]

    def create(self, spec: WorkerSpec | SidecarSpec) -> str:
        self._called("create")
        assert NAME not in self.found or not self.found[NAME].running, "it runs already"
        self.made += 1
        home = getattr(spec, "secrets", None)
        self.secrets = home and {path.name: path.read_text() for path in home.iterdir()}
        generation = spec.generation if isinstance(spec, WorkerSpec) else 0
        self.found[NAME] = Container(
            NAME, "acme", "worker", 3, 7, generation, running=False, instance=f"i{self.made}"
        )  # fmt: skip
        return NAME

    def start(self, name: str) -> Container:
        self._called("start")
        self.found[name] = replace(self.found[name], running=True, address="10.0.0.2")
        return self.found[name]

    def stop(self, name: str, timeout_s: float) -> None:
        self._called("stop")
        self.kill(name)

    def allow(self, container: Container, cpus: float) -> None:
        self.allowed.append((container.name, cpus))

    def kill(self, name: str) -> None:
        if name in self.found:
            self.found[name] = replace(self.found[name], running=False)

    def remove(self, name: str) -> None:
        self._called("remove")
        self.found.pop(name, None)

    def containers(self) -> list[Container]:
        self._called("containers")
        return list(self.found.values())

    def logs(self, name: str, **_: object) -> Iterator[bytes]:
        return iter(())

    def image_exists(self, image: str) -> bool:
        return True

    def running(self) -> list[str]:
        return [c.name for c in self.found.values() if c.running]


class Keeper:
    """Custody that says yes, and notes what it was asked."""

    def __init__(self, home: Path, engine: Engine) -> None:
        self.volume = Volume(home / "data", home / "meta", home / "run", home / "marker")
        self.volume.run.mkdir(parents=True)
        self.engine = engine
        self.calls: list[str] = []
        self.unconfirmed = 0
        self.adopted: Claim | None = None

    def __getattr__(self, name: str) -> Any:
        async def noted(*_: Any, **__: Any) -> None:
            self.calls.append(name)

        return noted

    async def claim(self, want: Assignment) -> Claim:
        self.calls.append("claim")
        return CLAIM

    async def prepare(self, claim: Claim, *_: Any) -> Prepared:
        return Prepared(claim, self.volume)

    async def settle(self, claim: Claim, progress: Any) -> Settled:
        return Settled()

    async def adopt(self, *_: Any) -> Claim | None:
        return self.adopted

    async def left(self, name: str) -> tuple[int, bool]:
        return 0, False

    async def release(self, name: str, **_: Any) -> None:
        self.calls.append(f"release while {self.engine.running()} run")
        if self.unconfirmed:
            self.unconfirmed -= 1
            raise Unconfirmed(name, "not all is there")

    def forget(self, name: str) -> None:
        self.calls.append("forget")

    def restored(self, name: str) -> None:
        return None


@dataclass
class Place:
    """One tenant on one node."""

    node: Node
    engine: Engine
    custody: Keeper
    home: Path
    told: list[str]
    followed: list[str]

    @property
    def tenant(self) -> Tenant:
        return self.node._tenant("acme")

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)

    async def up(self) -> None:
        self.tenant.assign(UP)
        await self.until(lambda: self.tenant.actual.worker)


def run(tmp_path: Path, test: Callable[[Place], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = Engine()
        custody = Keeper(tmp_path / "t", engine)
        quiet = SimpleNamespace(in_flight=lambda _: 0)
        told: list[str] = []
        followed: list[str] = []
        for call in ("route", "hold", "unroute", "forget"):
            setattr(
                quiet,
                call,
                lambda *_, call=call, **how: told.append(" ".join([call, *(k for k, v in how.items() if v)])),
            )
        volumes = SimpleNamespace(find=lambda _: custody.volume)
        parts = Parts(
            custody=cast("Any", custody), runtime=cast("Any", engine), volumes=cast("Any", volumes),
            gateway=cast("Any", quiet), apps=cast("Any", None), uid_of=lambda _: os.getuid(),
            runtime_dir=tmp_path / "run", image_prefix="fleet", follow=followed.append,
        )  # fmt: skip
        node = Node(Head("n1", "", Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1)), parts, session=lambda: 7)
        try:
            await test(Place(node, engine, custody, tmp_path, told, followed))
        finally:
            for gate in engine.gates.values():
                gate.set()
            await node.close()

    asyncio.run(main())
