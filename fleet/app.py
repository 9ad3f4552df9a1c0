"""The controller's composition root: `python -m fleet.app` makes the real parts and serves until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import structlog
import uvicorn
from fastapi import FastAPI

from fleet.api.build import build
from fleet.api.parts import Parts
from fleet.bucket import Bucket
from fleet.cordons import Cordoner
from fleet.core.drain import leaving
from fleet.core.leading import Me
from fleet.core.model import MachineState, machine_state
from fleet.desk import Desk
from fleet.events import Events
from fleet.execute import Executor
from fleet.index import Index
from fleet.leader import Leadership
from fleet.leases import Leases
from fleet.loop import Loop
from fleet.metrics import Metrics
from fleet.observe import Observer
from fleet.poll import Pollers
from fleet.shelf import Shelf
from fleet.vault import Vault, ciphers
from fleet.watch import Every, Watch
from fleet.world import World
from node.api import TenantState
from node.bucket.errors import BucketError
from node.bucket.probe import probe
from node.bucket.s3 import Location, S3Store
from node.bucket.store import Store
from node.settings import Settings, SettingsError, is_loopback, load

PROBE_RETRY_S = 2.0
STOP_S = 2
USAGE, UNAVAILABLE = 2, 6

log = structlog.get_logger("fleet")


class Controller:
    """All parts of one controller over a store, and its tasks. `app` is what to serve; its lifespan runs the rest."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        metrics: Metrics,
        every: Every | None = None,
        me: Me | None = None,
    ) -> None:
        """`me`: what the settings do not say of this controller's name and lease, None for the usual."""
        self.world = World()
        self.events = Events()
        self.bucket = Bucket(store)
        self.vault = Vault(self.bucket, settings.secrets_key)
        self.leader = Leadership(me or _me(settings), self.bucket, self.events)
        self.shelf = Shelf(self.world, self.bucket, self.events, self.leader.acts)
        self.desk = Desk(self.world, self.bucket, self.vault, self.events, self.shelf, self.leader.poke)
        self.metrics = metrics
        self.observer = Observer(self.world, self.events, metrics, self.leader.acts)
        self.pollers = Pollers(self.world, self.events, settings.token[0].get_secret_value(), verify=_verify(settings))
        self.executor = Executor(self.world, self.desk, self.vault, self.events, self.pollers.agents)
        self.loop = Loop(self.world, self.executor, self.observer, metrics, self.leader.acts)
        self.leases = Leases(self.world, self.bucket, self.events, self.leader.acts)
        self.index = Index(self.world, self.bucket, self.leader.acts)
        self.watch = Watch(self.world, self.bucket, self.events, self.index, self._nodes_listed, every or Every())
        self.watch.stands_by = lambda: not self.leader.acts()
        self.leader.on_change = self.world.touch_all
        self.leader.on_poke = self.watch.hurry
        self._gauges()
        parts = Parts(
            world=self.world,
            desk=self.desk,
            shelf=self.shelf,
            vault=self.vault,
            bucket=self.bucket,
            events=self.events,
            metrics=metrics,
            observer=self.observer,
            leader=self.leader,
            leases=self.leases,
            cordons=Cordoner(self.world, self.bucket, self.events, self.leader.poke),
            agents=self.pollers.agents,
            access=default_access(settings),
            tokens=settings.token,
            readonly=settings.token_readonly,
        )
        self.app = build(parts, self._lifespan)

    def _nodes_listed(self) -> None:
        self.pollers.sync()
        self.leases.sync()

    def _gauges(self) -> None:
        states = TenantState.__args__  # type: ignore[attr-defined] # a Literal's own list of values
        self.metrics.states("fleet_tenants", "Tenants by state.", states, self.observer.counts)
        known = MachineState.__args__  # type: ignore[attr-defined] # a Literal's own list of values
        self.metrics.states("fleet_nodes", "Machines by state.", known, self._nodes)
        stages = "Tenants that a drain has still to move, by how far they are."
        self.metrics.states("fleet_leaving_tenants", stages, ("waiting", "moving", "stuck"), self._leaving, "stage")
        self.metrics.acts.set_function(lambda: float(self.leader.acts()))

    def _nodes(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for machine in self.world.machines.values():
            state = machine_state(machine)
            counts[state] = counts.get(state, 0) + 1
        return counts

    def _leaving(self) -> dict[str, int]:
        world = self.world
        drained = [name for name, machine in world.machines.items() if machine.drain]
        return Counter(one.stage for name in drained for one in leaving(name, world.specs, world.is_))

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(self._run(), name="controller")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.executor.close()
            await self.leader.release()
            await self.pollers.close()
            await self.leases.close()
            self.bucket.close()

    async def _run(self) -> None:
        """Probe, load, then watch and act. The API is served meanwhile and says what is missing."""
        await self._probe()
        await self.leader.step()
        await self.watch.load()
        log.info("the bucket is known", tenants=len(self.world.specs), nodes=len(self.world.leases))
        async with asyncio.TaskGroup() as group:
            group.create_task(self.leader.run())
            group.create_task(self.index.run())
            group.create_task(self.shelf.run())
            group.create_task(self.watch.run())
            group.create_task(self.loop.run())

    async def _probe(self) -> None:
        while True:
            try:
                await self.bucket.call(lambda: probe(self.bucket.store))
            except BucketError as e:
                self.bucket.error = str(e)
                log.error("the bucket cannot be used", error=str(e), code=e.code)
                await asyncio.sleep(PROBE_RETRY_S)
                continue
            return


def _me(settings: Settings) -> Me:
    """This controller's name: where it is found, its machine, and where it listens there, which no other one can at the
    same time. A restart changes none of them."""
    where = f"{settings.controller} on {settings.node}/{settings.controller_listen}"
    return Me(where, settings.controller)


def default_access(settings: Settings) -> str:
    """What a spec without a choice gets: a token as soon as the gateway can be reached from elsewhere."""
    return "open" if is_loopback(settings.gateway_listen) else "token"


def _verify(settings: Settings) -> ssl.SSLContext:
    """Whom to trust: one for all agents, as reading a machine's certificates costs more than a request."""
    if settings.tls_ca is not None:
        return ssl.create_default_context(cafile=str(settings.tls_ca))
    return httpx.create_ssl_context()


def check(settings: Settings) -> None:
    """Refuse settings that the controller must not start with. Raises SettingsError."""
    if settings.bucket is None:
        raise SettingsError("FLEET_BUCKET is not set: `fleet serve` sets it, or name one like s3://my-fleet/prod")
    if not settings.token:
        raise SettingsError("FLEET_TOKEN is not set: the controller answers nobody without it")
    if not is_loopback(settings.controller_listen) and settings.tls_cert is None and not settings.insecure:
        raise SettingsError(
            f"FLEET_CONTROLLER_LISTEN is {settings.controller_listen}, beyond this machine: give FLEET_TLS_CERT and "
            "FLEET_TLS_KEY, or say --insecure (FLEET_INSECURE=true)"
        )
    try:
        ciphers(settings.secrets_key)
    except ValueError:
        raise SettingsError("FLEET_SECRETS_KEY is not a Fernet key: 32 bytes in URL-safe base64") from None


def configure_logs(level: str) -> None:
    """One JSON line an event, on stderr; readable where that is a terminal."""
    shown = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def main(argv: list[str] | None = None) -> int:
    """Run the controller; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fleet.app", description="The controller.")
    parser.add_argument("--config", type=Path, help="a fleet.toml")
    args = parser.parse_args(argv)
    try:
        settings = load(args.config)
        check(settings)
        configure_logs(settings.log_level)
        metrics = Metrics()
        store = S3Store(Location.of(settings), observe=metrics.bucket_request)
        controller = Controller(settings, store, metrics)
    except (SettingsError, OSError) as e:
        sys.stderr.write(f"fleet: {e}\n")
        return USAGE
    except BucketError as e:
        sys.stderr.write(f"fleet: {e}\n")
        return UNAVAILABLE
    host, _, port = settings.controller_listen.rpartition(":")
    server = uvicorn.Server(
        uvicorn.Config(
            controller.app,
            host=host.strip("[]"),
            port=int(port),
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
    )
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
