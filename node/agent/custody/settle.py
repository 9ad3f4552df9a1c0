"""From streaming to holding: the first snapshot of every file confirmed, the marker, `data_epoch`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from node.agent.custody import ltx, marker, sidecar, volume
from node.agent.custody.context import Context
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.held import HeldTenant, own_record, write_owner
from node.agent.custody.values import Progress, Settled
from node.agent.ports import Volume
from node.api import Phase

_RETRY_S = 0.1
_SLOW_RETRY_S = 1.0


async def settle(ctx: Context, t: HeldTenant, progress: Progress | None) -> Settled:
    """Make this epoch the one that a restore reads. Raises Unconfirmed, OwnedElsewhere.

    Waits for the files that were restored; of a tenant that is born, for every declared one.
    """
    owner = t.owner.record
    if owner.state == "running" and owner.data_epoch == owner.epoch:
        return Settled(warnings=())
    if progress:
        progress("snapshot", None)
    started = ctx.monotonic()
    awaited = tuple(t.sources) or t.claim.databases
    confirmed = await _confirmed(ctx, t, awaited, forever=not t.sources)
    await hold(ctx, t, confirmed)
    took = Phase(name="snapshot", duration_s=ctx.monotonic() - started)
    return Settled((took,), tuple(f"{db} does not exist yet" for db in t.missing))


async def hold(ctx: Context, t: HeldTenant, confirmed: dict[str, int]) -> None:
    """Marker, then CAS: what was confirmed is this epoch's, and the epoch is the tenant's."""
    vol = _volume(t)
    found = await ctx.on_engine(marker.read, vol.marker)
    if found is None:
        raise Unconfirmed(t.tenant, f"{t.tenant}: its volume lost its marker; start it again")
    await own_record(ctx, t)
    await ctx.on_engine(marker.write, vol.marker, found.confirmed())
    changes = {"restore_id": t.claim.restore_id} if t.claim.restore_id else {}
    owner = await write_owner(
        ctx, t, state="running", data_epoch=t.claim.epoch, reason="", message="", **changes,
        positions={db: ltx.hex16(txid) for db, txid in confirmed.items()},
    )  # fmt: skip
    t.claim = replace(t.claim, data_epoch=owner.data_epoch, restore_id=None)


async def _confirmed(ctx: Context, t: HeldTenant, awaited: tuple[str, ...], *, forever: bool) -> dict[str, int]:
    """Each awaited file's txid in the bucket. `forever`: a worker creates them when it likes."""
    done: dict[str, int] = {}
    began = progressed = ctx.monotonic()
    why = "it was not asked yet"
    while True:
        missing = tuple(db for db in awaited if db not in done)
        here = await ctx.on_engine(volume.existing, _volume(t), missing)
        t.missing = tuple(db for db in missing if db not in here)
        for db, answer in await _ask(ctx, t, here):
            if isinstance(answer, int):
                done[db], progressed = answer, ctx.monotonic()
            else:
                why = str(answer)
        if len(done) == len(awaited):
            return done
        if not forever and ctx.monotonic() - progressed > ctx.bounds.settle_s:
            raise Unconfirmed(t.tenant, f"{t.tenant}: the first snapshot is not confirmed: {why}")
        await asyncio.sleep(_RETRY_S if ctx.monotonic() - began < 30 else _SLOW_RETRY_S)


async def _ask(ctx: Context, t: HeldTenant, files: tuple[str, ...]) -> list[tuple[str, int | Unconfirmed]]:
    async def one(db: str) -> tuple[str, int | Unconfirmed]:
        try:
            return db, (await sidecar.confirmed_within(t, (db,), ctx.bounds.settle_s))[db]
        except Unconfirmed as e:
            return db, e

    return await asyncio.gather(*(one(db) for db in files))


def _volume(t: HeldTenant) -> Volume:
    if t.volume is None:
        raise Unconfirmed(t.tenant, f"{t.tenant}: it has no volume on this node yet")
    return t.volume
