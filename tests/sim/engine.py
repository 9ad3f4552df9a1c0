"""What the agent asks of its machine: containers, volumes and routes, as the product's ports have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from node.agent import ports
from node.agent.ports import JobResult, JobSpec, Route, RuntimeFailed, SidecarSpec, Usage, WorkerSpec
from tests.sim.disk import Volume
from tests.sim.machine import Container
from tests.sim.process import sleep, wait
from tests.sim.sidecar import Litestream

if TYPE_CHECKING:
    from tests.sim.machine import Machine

ROOT = Path("/sim")


def home(machine: str, tenant: str) -> ports.Volume:
    """The folders of a tenant's volume; nothing is there but their names, which say whose they are."""
    base = ROOT / machine / tenant
    return ports.Volume(base / "data", base / "meta", base / "run", base / "marker")


class Runtime:
    """The engine. A start that was asked for is carried out even if nobody waits for it any more."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    def _takes(self, low: float, high: float) -> None:
        sleep(self._m.world.rng.uniform(low, high))

    def ensure(self) -> None:
        """All there."""

    def create(self, spec: WorkerSpec | SidecarSpec) -> str:
        """Create a container, replacing a stopped one."""
        self._takes(0.02, 0.1)
        m, role = self._m, "worker" if isinstance(spec, WorkerSpec) else "sidecar"
        name = f"{role}-{spec.tenant}"
        old = m.containers.get(name)
        if old is not None and old.running:
            raise RuntimeFailed(f"{name} runs", reason="bad_request", retryable=True)
        vol = m.disk.volumes.get(spec.tenant)
        if vol is None:
            raise RuntimeFailed(f"{spec.tenant} has no volume", reason="bad_request", retryable=True)
        c = Container(
            m, name, spec.tenant, "worker" if role == "worker" else "sidecar", spec.epoch, spec.session,
            spec.generation if isinstance(spec, WorkerSpec) else 0, vol, f"{name}#{m.world.number()}",
        )  # fmt: skip
        if role == "sidecar":
            c.litestream = Litestream(c, m.world.specs[spec.tenant].databases)
        m.containers[name] = c
        return name

    def start(self, name: str) -> ports.Container:
        """Start it; the engine does so in its own time, and answers then."""
        m = self._m
        c = m.containers.get(name)
        if c is None:
            raise RuntimeFailed(f"no container {name}", reason="bad_request", retryable=True)
        boot = m.boot

        def begin(go_on: Callable[[object], None]) -> None:
            def land() -> None:
                if m.boot == boot and m.on:
                    m.begin(c)
                go_on(None)

            m.world.engine_start(m, land)

        if not c.running:
            wait(begin)
        if not c.running:
            raise RuntimeFailed(f"{name} is gone", reason="bad_request", retryable=True)
        return described(c)

    def stop(self, name: str, timeout_s: float) -> None:
        """SIGTERM and wait; who stands still is killed at the end of the patience."""
        c = self._m.containers.get(name)
        if c is None or not c.running:
            return
        self._takes(0.05, 0.3)
        if not c.moves:
            sleep(timeout_s)
        if c.running:
            self._m.stop(c)

    def kill(self, name: str) -> None:
        """At once."""
        c = self._m.containers.get(name)
        if c is not None and c.running:
            self._m.stop(c)

    def remove(self, name: str) -> None:
        """Gone."""
        self._takes(0.01, 0.05)
        c = self._m.containers.get(name)
        if c is not None:
            self._m.end(c)

    def run_job(self, spec: JobSpec, timeout_s: float, progress: Callable[[str], None] | None = None) -> JobResult:
        """Restores are made by the seams."""
        raise NotImplementedError

    def containers(self) -> list[ports.Container]:
        """All of them."""
        return [described(c) for c in self._m.containers.values()]

    def logs(self, name: str, *, tail: int | None, since: float | None, follow: bool) -> Iterator[bytes]:
        """None."""
        return iter(())

    def deaths(self) -> Iterator[ports.Container]:
        """Nobody listens here."""
        return iter(())

    def allow(self, container: ports.Container, cpus: float) -> None:
        """Computing takes no time here."""

    def usage(self, name: str) -> Usage | None:
        """Not measured."""
        return None

    def image_exists(self, image: str) -> bool:
        """It does."""
        return True


def described(c: Container) -> ports.Container:
    """A container as the port tells of it."""
    return ports.Container(
        c.name, c.tenant, c.role, c.epoch, c.session, c.generation, c.running, address="10.0.0.1", instance=c.instance
    )


class Volumes:
    """The machine's disk by tenant."""

    def __init__(self, machine: Machine) -> None:
        self._m = machine

    def ensure(self, tenant: str, uid: int, disk_bytes: int) -> ports.Volume:
        """Made empty if there is none. Raises RuntimeFailed while the disk is full."""
        if self._m.full:
            raise RuntimeFailed(f"no room for {tenant}", reason="disk_full", retryable=True)
        if tenant not in self._m.disk.volumes:
            self._m.disk.volumes[tenant] = Volume(self._m.world.number(), tenant)
        return home(self._m.name, tenant)

    def find(self, tenant: str) -> ports.Volume | None:
        """If there is one."""
        return home(self._m.name, tenant) if tenant in self._m.disk.volumes else None

    def set_aside(self, tenant: str, label: str) -> Path:
        """Never wiped."""
        self._m.disk.aside.append(self._m.disk.volumes.pop(tenant))
        return ROOT / self._m.name / "aside" / f"{tenant}-{label}"

    def aside(self) -> list[ports.AsideVolume]:
        """What was set aside."""
        base = ROOT / self._m.name / "aside"
        return [ports.AsideVolume(v.tenant, base / str(v.number), 0.0, 0) for v in self._m.disk.aside]

    def drop_aside(self, path: Path) -> None:
        """Deleted for good."""
        aside = self._m.disk.aside
        aside[:] = [v for v in aside if str(v.number) != path.name]

    def discard(self, tenant: str) -> None:
        """Deleted."""
        vol = self._m.disk.volumes.pop(tenant, None)
        if vol is not None:
            self._m.world.judge.discarded(tenant, vol)

    def stopped(self, tenant: str) -> bool:
        """No disk here stops after an error."""
        return False

    def used_bytes(self, tenant: str) -> int:
        """Nothing to speak of."""
        return 0

    def tenants(self) -> list[str]:
        """Every tenant with a volume."""
        return sorted(self._m.disk.volumes)


class Gateway:
    """Routes live in the machine: they survive the agent."""

    def __init__(self, machine: Machine) -> None:
        self._routes = machine.routes

    def ensure(self) -> None:
        """It runs."""

    def route(self, tenant: str, route: Route) -> None:
        """Requests go there."""
        self._routes[tenant] = route.address

    def hold(self, tenant: str, *, leaving: bool = False) -> None:
        """Requests wait: here they get no answer."""
        self._routes.pop(tenant, None)

    def unroute(self, tenant: str, reason: str) -> None:
        """503."""
        self._routes.pop(tenant, None)

    def forget(self, tenant: str) -> None:
        """404."""
        self._routes.pop(tenant, None)

    def tenants(self) -> list[str]:
        """Those with a route."""
        return sorted(self._routes)

    def in_flight(self, tenant: str) -> int:
        """None that matters."""
        return 0

    def stop(self) -> None:
        """No route is left."""
        self._routes.clear()
