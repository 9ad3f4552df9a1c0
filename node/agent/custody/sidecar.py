"""Starting, restarting and stopping a tenant's sidecar through the Runtime port, and talking to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from node.agent.custody import config, watchdog
from node.agent.custody.context import Context
from node.agent.custody.errors import Refused, SidecarFailed, Unconfirmed
from node.agent.custody.files import write_config
from node.agent.custody.held import HeldTenant, Sidecar
from node.agent.custody.litestream import ControlSocket, SocketError, Synced, SyncFailed
from node.agent.custody.rounds import Rounds
from node.agent.ports import RuntimeFailed, SidecarSpec, Volume
from node.bucket import keys

T = TypeVar("T")
_RETRY_S = 0.02


async def engine(ctx: Context, tenant: str, call: Callable[[], T]) -> T:
    """A call to the runtime or the volumes, its failure in custody's words."""
    try:
        return await ctx.on_engine(call)
    except RuntimeFailed as e:
        raise Refused(tenant, f"{tenant}: {e}", reason=e.reason, retryable=e.retryable) from e


async def start(ctx: Context, t: HeldTenant, vol: Volume, uid: int) -> None:
    """Make and start the sidecar on this epoch's prefix, unless it was; returns when its socket answers.

    Raises Refused (the engine), SidecarFailed.
    """
    t.uid = uid
    async with t.sidecar_lock:
        if t.sidecar is None:
            spec = await _spec(ctx, t, vol, uid)
            name = await engine(ctx, t.tenant, lambda: ctx.runtime.create(spec))
            await engine(ctx, t.tenant, lambda: ctx.runtime.start(name))
            attach(ctx, t, spec, name)
    await answering(ctx, t)


async def _spec(ctx: Context, t: HeldTenant, vol: Volume, uid: int) -> SidecarSpec:
    claim, folder = t.claim, config_folder(ctx, t)
    paths = {db: keys.database(claim.tenant, claim.epoch, db) for db in claim.databases}
    credentials = await ctx.on_store(ctx.replica.credentials, keys.epoch_data(claim.tenant, claim.epoch))
    content = config.sidecar(
        ctx.replica, paths, credentials, rpo_s=claim.rpo_s, retention_s=claim.retention_s, checkpoints=t.checkpoints
    )
    await ctx.on_engine(write_config, folder, uid, content)
    return SidecarSpec(
        tenant=claim.tenant, epoch=claim.epoch, session=claim.session, uid=uid, volume=vol, config=folder
    )


def attach(ctx: Context, t: HeldTenant, spec: SidecarSpec, name: str) -> Sidecar:
    """Talk to a sidecar that runs."""
    if t.sidecar is not None:
        detach(t)
    socket = ControlSocket(spec.volume.meta / config.SOCKET)
    t.volume = spec.volume
    t.sidecar = Sidecar(
        spec=spec,
        name=name,
        socket=socket,
        syncs={db: _syncs(ctx, t, socket, db) for db in t.claim.databases},
        looks={db: _looks(ctx, t, socket, db) for db in t.claim.databases},
        watch=watchdog.start(ctx.monotonic()),
    )
    return t.sidecar


def _syncs(ctx: Context, t: HeldTenant, socket: ControlSocket, db: str) -> Rounds[int]:
    async def confirm() -> int:
        try:
            synced = await socket.sync(config.data_path(db), wait=True)
        except SyncFailed as e:
            t.full |= e.full
            why = "the file does not exist yet" if e.absent else str(e)
            raise Unconfirmed(t.tenant, f"{t.tenant}: {db} is not confirmed: {why}") from e
        except SocketError as e:
            raise Unconfirmed(t.tenant, f"{t.tenant}: {db} is not confirmed: {e}") from e
        # An answer of 200 to a call that waits is what counts: a commit of the next moment may already be in `txid`.
        return synced.replicated_txid

    return Rounds(confirm, ctx.monotonic)


def _looks(ctx: Context, t: HeldTenant, socket: ControlSocket, db: str) -> Rounds[Synced | None]:
    async def ask() -> Synced | None:
        try:
            return await socket.sync(config.data_path(db), wait=False)
        except SyncFailed as e:
            t.full |= e.full
            return None

    return Rounds(ask, ctx.monotonic)


def detach(t: HeldTenant) -> None:
    """Stop talking to it: those who wait for a confirmation are told that it is not known."""
    if t.sidecar is not None:
        _abandon(t, t.sidecar, "stopped")
        t.sidecar = None


def _abandon(t: HeldTenant, sidecar: Sidecar, what: str) -> None:
    error = Unconfirmed(t.tenant, f"{t.tenant}: its sidecar was {what} meanwhile; repeat it")
    for db in t.claim.databases:
        sidecar.syncs[db].abandon(error)
        sidecar.looks[db].abandon(error)
    sidecar.socket.close()


async def answering(ctx: Context, t: HeldTenant) -> None:
    """Wait until the socket answers. Raises SidecarFailed."""
    sidecar = running(t)
    until, last = ctx.monotonic() + ctx.bounds.socket_s, "it did not answer"
    while ctx.monotonic() < until:
        try:
            await asyncio.wait_for(sidecar.socket.info(), ctx.bounds.poll_s)
        except (SocketError, TimeoutError) as e:
            last = str(e) or last
            await asyncio.sleep(_RETRY_S)
        else:
            return
    raise SidecarFailed(t.tenant, f"{t.tenant}: its sidecar does not come up: {last}; see its logs")


async def restart(ctx: Context, t: HeldTenant, limits: watchdog.Limits) -> bool:
    """Kill the sidecar, if it still runs, and start it on the same volume and prefix: its chain goes on.

    Nobody waits for its socket here. False: it was stopped meanwhile. Raises Refused.
    """
    async with t.sidecar_lock:
        sidecar = t.sidecar
        if sidecar is None:
            return False
        _abandon(t, sidecar, "restarted")
        sidecar.restarts += 1
        sidecar.watch = watchdog.restarted(sidecar.watch, ctx.monotonic(), limits)
        await engine(ctx, t.tenant, lambda: ctx.runtime.kill(sidecar.name))
        sidecar.name = await engine(ctx, t.tenant, lambda: ctx.runtime.create(sidecar.spec))
        if t.sidecar is sidecar:
            await engine(ctx, t.tenant, lambda: ctx.runtime.start(sidecar.name))
        if t.sidecar is not sidecar:  # the tenant was dropped meanwhile, and what ran of it killed: so is this
            await engine(ctx, t.tenant, lambda: ctx.runtime.remove(sidecar.name))
            return False
        return True


async def reconfigure(ctx: Context, t: HeldTenant, limits: watchdog.Limits) -> None:
    """Restart the sidecar with the configuration that its claim asks for now. Raises Refused."""
    if t.sidecar is not None and t.uid is not None:
        t.sidecar.spec = await _spec(ctx, t, t.sidecar.spec.volume, t.uid)
        await restart(ctx, t, limits)


@asynccontextmanager
async def stopped(ctx: Context, t: HeldTenant) -> AsyncIterator[None]:
    """Stop the sidecar, in order: its own last sync is waited for. It is removed by the end of the block.

    Raises Refused.
    """
    async with t.sidecar_lock:
        sidecar = t.sidecar
        if sidecar is None:
            yield
            return
        _abandon(t, sidecar, "stopped")
        await engine(ctx, t.tenant, lambda: ctx.runtime.stop(sidecar.name, ctx.bounds.stop_s))
        removal = asyncio.ensure_future(engine(ctx, t.tenant, lambda: ctx.runtime.remove(sidecar.name)))
        try:
            yield
        finally:
            await removal
            detach(t)  # not before: an engine that did not do it is asked again


async def kill(ctx: Context, t: HeldTenant) -> None:
    """Kill and remove the sidecar. Raises Refused."""
    async with t.sidecar_lock:
        sidecar = t.sidecar
        if sidecar is not None:
            await engine(ctx, t.tenant, lambda: ctx.runtime.remove(sidecar.name))
            detach(t)


def running(t: HeldTenant) -> Sidecar:
    """The sidecar. Raises SidecarFailed if none was started."""
    if t.sidecar is None:
        raise SidecarFailed(t.tenant, f"{t.tenant}: it has no sidecar on this node")
    return t.sidecar


def config_folder(ctx: Context, t: HeldTenant) -> Path:
    """Where a sidecar's configuration is."""
    return ctx.runtime_dir / "sidecars" / t.tenant


def makes_checkpoints(ctx: Context, t: HeldTenant) -> bool:
    """Whether the configuration that its sidecar was started with lets it. Blocking."""
    try:
        return config.NO_CHECKPOINTS not in (config_folder(ctx, t) / config.FILE).read_text()
    except OSError:
        return True


async def confirmed_within(t: HeldTenant, files: tuple[str, ...], timeout_s: float) -> dict[str, int]:
    """Files confirmed, side by side, by rounds that start from now on: each one's txid in the bucket.

    The bound is this caller's; the calls go on. Raises Unconfirmed.
    """
    syncs = running(t).syncs
    joined = [syncs[db].join() for db in files]
    try:
        done = await asyncio.wait_for(asyncio.gather(*map(asyncio.shield, joined)), timeout_s)
    except TimeoutError:
        message = f"{t.tenant}: not confirmed within {timeout_s:.3g} s: it may or may not be in the bucket"
        raise Unconfirmed(t.tenant, message) from None
    except ConnectionAbortedError as e:
        raise Unconfirmed(t.tenant, f"{t.tenant}: {e}; it may or may not be in the bucket") from e
    return dict(zip(files, done, strict=True))


async def look(t: HeldTenant, db: str, timeout_s: float) -> Synced | None:
    """Where a file is, without waiting for the bucket; None while it is absent. Raises SocketError, TimeoutError.

    The call itself is never broken off, whatever its caller's bound.
    """
    try:
        return await running(t).looks[db].settled(timeout_s)
    except (ConnectionAbortedError, Unconfirmed) as e:
        raise SocketError(str(e)) from e
