"""Composition root of the agent: the only place where its real adapters are made."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import docker
import structlog
import uvicorn

from node import lock
from node.agent import guardapp
from node.agent.apps import Apps
from node.agent.custody.custody import Custody
from node.agent.custody.link import GuardLink
from node.agent.custody.values import Credentials, ReplicaTarget
from node.agent.custody.view import View, boottime
from node.agent.finder import Finder
from node.agent.gateway.config import Files, from_settings
from node.agent.gateway.door import GatewayDoor
from node.agent.gateway.errors import GatewayFailed
from node.agent.gateway.haproxy import HaproxyGateway
from node.agent.janitor import Janitor
from node.agent.metrics import NodeMetrics
from node.agent.node import Head, Node
from node.agent.places import Places
from node.agent.ports import RuntimeFailed
from node.agent.runtime.docker import DockerRuntime
from node.agent.runtime.gateway_container import GatewayContainer
from node.agent.runtime.uids import Uids
from node.agent.runtime.volumes import DiskVolumes
from node.agent.sampler import Sampler
from node.agent.server import build
from node.agent.walk import Parts
from node.bucket.records import Capacity
from node.bucket.s3 import Location, S3Store

if TYPE_CHECKING:
    from node.settings import Settings

log = structlog.get_logger()

GATEWAY_UID = 199_999  # below every tenant's
ENSURE_S = 1.0
# Credentials that are renewed are renewed ten minutes before they end.
SAME_S = 30.0


@dataclass(frozen=True)
class Machine:
    """Everything of one agent, made."""

    link: GuardLink
    node: Node
    runtime: DockerRuntime
    gateway: HaproxyGateway
    custody: Custody
    sampler: Sampler
    janitor: Janitor
    finder: Finder
    door: GatewayDoor


def replica_target(location: Location, clock: Callable[[], float] = time.monotonic) -> ReplicaTarget:
    """Where sidecars replicate to, with the credentials of this process. Asking for those computes for 20 ms: fifty
    tenants that come up together share an answer."""
    lock = threading.Lock()
    known: Credentials | None = None
    until = 0.0

    def credentials(_prefix: str) -> Credentials:
        nonlocal known, until
        with lock:
            if known is None or clock() >= until:
                found = location.lasting_credentials()
                known, until = Credentials(found.access_key, found.secret_key), clock() + SAME_S
            return known

    return ReplicaTarget(location.bucket, location.prefix, location.endpoint, location.region, credentials)


def compose(settings: Settings, link: GuardLink) -> Machine:
    """Make every part of this machine's agent."""
    location = Location.of(settings)
    store = S3Store(location, observe=lambda *seen: metrics.observe_bucket_request(*seen))
    fleet = settings.runtime_dir.name
    runtime = DockerRuntime(fleet, image_prefix=settings.image_prefix)
    volumes = DiskVolumes(settings.state_dir)
    folder = settings.runtime_dir / "gateway"
    process = GatewayContainer(docker.from_env(), fleet, f"{settings.image_prefix}/gateway:latest", folder, GATEWAY_UID)
    gateway = HaproxyGateway(from_settings(settings), process, folder, GATEWAY_UID)
    custody = Custody(store, replica_target(location), runtime, volumes, lambda: link.session, settings.runtime_dir)
    memory_bytes, cpus, disk_bytes = guardapp.capacity_of(settings)
    finder = Finder(store, gateway, settings.node, guardapp.gateway_url(settings))
    parts = Parts(
        custody=custody,
        runtime=runtime,
        volumes=volumes,
        gateway=gateway,
        apps=Apps(store, settings.state_dir / "apps"),
        uid_of=Uids(settings.state_dir).of,
        runtime_dir=settings.runtime_dir,
        image_prefix=settings.image_prefix,
        follow=finder.follow,
        places=Places(max(1, int(cpus) // 2), max(2, int(cpus) * 2)),
    )
    capacity = Capacity(memory_bytes=memory_bytes, cpus=cpus, disk_bytes=disk_bytes)
    head = Head(settings.node, guardapp.gateway_url(settings), capacity)
    node = Node(head, parts, session=lambda: link.session.session)
    sampler = Sampler(node, settings.state_dir, lambda: remaining_s(link))
    metrics = NodeMetrics(sampler.snapshot)
    node.render_metrics = metrics.render
    node.on_restored = metrics.observe_restore
    node.on_fenced = metrics.observe_fence
    janitor = Janitor(node, link.live, metrics.observe_collected)
    node.tidy = lambda tenant, dry_run: janitor.tidy(tenant, dry_run=dry_run)
    sampler.aside = lambda: janitor.aside
    door = GatewayDoor(Files(folder).door, GATEWAY_UID, finder.ask, finder.doubt)
    return Machine(link, node, runtime, gateway, custody, sampler, janitor, finder, door)


def remaining_s(link: GuardLink) -> float | None:
    """Seconds until the lease's deadline, negative when it has passed; None while it does not bind."""
    deadline = link.session.deadline_boottime_s
    return None if deadline is None else deadline - boottime()


async def follow_session(machine: Machine) -> None:
    """Do what each state of the guard's session asks for, in order, for ever."""
    link, node = machine.link, machine.node
    async for view in link.changes():
        log.info("session", number=view.session, state=view.state, reason=view.reason)
        match view.state:
            case "settling":
                await settle(machine, view)
            case "active":
                if not node.adopted:
                    await adopt(machine)
                await node.thaw()
            case "frozen" | "hung" | "revoked" | "starting":
                await node.freeze(view.reason or view.state)
            case "stopping":
                if not node.adopted:  # the agent before died on the way out: what it left is released as well
                    await adopt(machine)
                await leave(machine)
            case "gone":
                return


async def settle(machine: Machine, view: View) -> None:
    """A new session: take up or kill what an earlier one left, then say so; the guard thaws after that."""
    if machine.node.adopted:
        await machine.node.resession()
    else:
        await adopt(machine)
    await machine.link.settled(view.session)


async def adopt(machine: Machine) -> None:
    """Take up what runs here; routes of tenants that are not here any more are forgotten."""
    await machine.node.adopt()
    for name in set(machine.gateway.tenants()) - set(machine.node.tenants):
        await asyncio.to_thread(machine.gateway.forget, name)


async def leave(machine: Machine) -> None:
    """The machine leaves: everything down in order, its gateway last."""

    async def tick() -> None:
        while True:
            machine.link.progress()
            await asyncio.sleep(1)

    ticking = asyncio.create_task(tick())
    try:
        for why in await machine.node.release():
            log.error("not released", why=why, hint="its data stays on this disk")
    finally:
        ticking.cancel()
    with contextlib.suppress(RuntimeFailed, GatewayFailed):
        await asyncio.to_thread(machine.gateway.stop)
    await machine.link.released()


async def keep_gateway(machine: Machine) -> None:
    """The gateway runs, with all routes; looked at every second."""
    said = ""
    while True:
        try:
            await asyncio.to_thread(machine.gateway.ensure)
            said = ""
        except (RuntimeFailed, GatewayFailed) as e:
            if str(e) != said:
                said = str(e)
                log.error("gateway does not run", error=said)
        await asyncio.sleep(ENSURE_S)


async def ensure_runtime(machine: Machine) -> None:
    """Networks, firewall and cgroup are there before anything runs in them."""
    while True:
        try:
            await asyncio.to_thread(machine.runtime.ensure)
            return
        except RuntimeFailed as e:
            log.error("engine not usable", error=str(e), reason=e.reason)
            await asyncio.sleep(ENSURE_S)


async def serve(settings: Settings) -> int:
    """Run the agent until it is told to end; tenants are left as they are."""
    link = await GuardLink.connect(settings.runtime_dir, guardapp.spawn_guard)
    machine = compose(settings, link)
    host, _, port = settings.agent_listen.rpartition(":")
    config = uvicorn.Config(
        build(machine.node, settings.token, settings.token_readonly),
        host=host.strip("[]"),
        port=int(port),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
    )
    server = uvicorn.Server(config)
    await machine.door.open()
    await ensure_runtime(machine)
    machine.node.follow_deaths(asyncio.get_running_loop())
    tasks: list[Awaitable[object]] = [
        server.serve(),
        follow_session(machine),
        keep_gateway(machine),
        machine.node.follow_custody(machine.custody.watch()),
        machine.node.follow_custody(machine.custody.supervise()),
        machine.sampler.keep(),
        machine.janitor.keep(),
        machine.finder.keep(),
    ]
    running = [asyncio.ensure_future(t) for t in tasks]
    try:
        # Any of them ending ends the agent: the guard starts a new one, which adopts everything.
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await machine.door.close()
        await machine.finder.close()
        await machine.node.close()
        machine.custody.close()
        await link.close()
    return 0


def run(settings: Settings) -> int:
    """The agent's process. Answers its exit code: 75 when another agent lives."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        return asyncio.run(serve(settings))
    except lock.Held:
        return 75
