"""The composition root: from the environment to a serving process, and down again on SIGTERM.

The order matters. The socket listens first, so that early connections wait instead of being refused; the tenant's code
is loaded next; `/readyz` answers 200 once the engine has recovered. On the way down nothing new is accepted, requests
are finished, then the engine is closed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys

from node.worker.api import Api
from node.worker.door import Door
from node.worker.durability import confirm_with
from node.worker.metrics import RequestCounts
from node.worker.operations import Routes
from node.worker.server import QuietServer, listen
from node.worker.settings import Settings, SettingsError, read_settings
from node.worker.site import Site
from node.worker.table import operations
from node.worker.tenant import Tenant, TenantError, load_tenant
from node.worker.waker import Waker
from node.workflow import Engine, configure
from node.workflow.errors import WorkflowError

log = logging.getLogger("node.worker")

LOG_NAME = "workflow.db"


def main() -> int:
    """Serves until SIGTERM. Returns the exit code: 0 stopped as asked, 1 could not serve, 2 wrong settings."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        settings = read_settings(os.environ)
        listener = listen(settings.host, settings.port)
    except SettingsError as error:
        return _refuse(str(error), 2)
    except OSError as error:
        return _refuse(f"cannot listen on the port of NODE_PORT: {error}", 1)
    with listener:
        return _serve(settings, listener)


def _serve(settings: Settings, listener: socket.socket) -> int:
    if settings.door is None:
        _warn_of_foreign_connections()
    # Where nobody streams the files, someone has to checkpoint; where somebody does, nobody else may.
    configure(
        folder=settings.data,
        synchronous="normal" if settings.confirms else "full",
        checkpoint=settings.door is None,
    )
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
        tenant = load_tenant(settings.app)
        gc.freeze()  # what is loaded now stays: no collection has to look through it
        gc.enable()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(settings, tenant, listener))
    except (TenantError, WorkflowError) as error:
        return _refuse(str(error), 1)
    except Exception:
        log.exception("the worker cannot serve the code in %s", settings.app)
        return 1
    return 0


def _refuse(message: str, exit_code: int) -> int:
    """Says why nothing is served: one line, as the message is made for people; the traceback of a bug is logged."""
    log.error("%s", message)
    return exit_code


async def _run(settings: Settings, tenant: Tenant, listener: socket.socket) -> None:
    stopping = asyncio.Event()
    door = Door(settings.door) if settings.door is not None else None
    confirm_with(door.durable if door and settings.confirms else None)
    engine = Engine(
        settings.data / LOG_NAME,
        tenant.workflows,
        durable=door.durable if door and settings.confirms else None,
        # Also where the log itself may lose its tail: no step's result may come back without what the step stored.
        effects_durable=door.durable if door else None,
        synchronous="normal" if settings.confirms else "full",
        checkpoint=settings.door is None,
        **tenant.engine,
    )
    waker = Waker(engine, door) if door is not None else None
    counts = RequestCounts()
    api = Api(engine, counts, door, stopping)
    server = QuietServer(
        Site(Routes(operations(api)), counts, tenant.asgi, api.pressure), stopping, tenant=tenant.asgi is not None
    )
    opening = asyncio.create_task(_open(engine, api, waker, stopping), name="open")
    try:
        await server.serve(sockets=[listener])
    finally:
        if not opening.done():
            opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        if waker is not None:
            await waker.close()
        await engine.close()
        if door is not None:
            await door.close()
    opening.result()


async def _open(engine: Engine, api: Api, waker: Waker | None, stopping: asyncio.Event) -> None:
    try:
        await engine.open()
    except BaseException:
        stopping.set()
        raise
    api.ready = True
    if waker is not None:
        waker.open()
    log.info("ready: the engine has recovered")


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


def _warn_of_foreign_connections() -> None:
    """In development: says which SQLite files are opened past `open_database`, whose checkpoints would lose data."""

    def watch(event: str, args: tuple[object, ...]) -> None:
        if event == "sqlite3.connect" and args and str(args[0]) != ":memory:":
            log.warning(
                "sqlite3 opens %s past open_database(): its checkpoints can lose what is not yet in the bucket; "
                "use node.workflow.open_database(name)",
                args[0],
            )

    sys.addaudithook(watch)
