"""Letting go: the last byte of every file confirmed, the sidecar stopped, positions recorded, the record released."""

from __future__ import annotations

import asyncio
import errno
from typing import Literal

from node.agent.custody import claim as rules
from node.agent.custody import ltx, marker, sidecar, volume
from node.agent.custody.context import Context
from node.agent.custody.errors import OwnedElsewhere, Unconfirmed
from node.agent.custody.held import HeldTenant, new_owner, write_owner
from node.agent.custody.litestream import SocketError
from node.agent.custody.look import positions
from node.agent.custody.position import Position
from node.agent.ports import Volume
from node.bucket import cas, keys
from node.bucket.errors import Ambiguous, BucketError, Conflict
from node.bucket.records import Lease, Owner

To = Literal["released", "hibernated", "purged"]
_RETRY_S = 0.1


async def release(ctx: Context, t: HeldTenant, to: To, generation: int | None) -> None:
    """Release a tenant whose worker is stopped. Raises Unconfirmed, with nothing dropped; OwnedElsewhere."""
    vol = t.volume
    if vol is None:
        await _record(ctx, t, to, generation, t.owner.record.data_epoch, dict(t.owner.record.positions))
        return
    for _ in range(3):
        if t.sidecar is not None:
            await _confirm_last(ctx, t, vol)
        async with sidecar.stopped(ctx, t):
            local = await ctx.on_engine(volume.local_positions, vol, t.claim.databases)
            complete = await _in_bucket(ctx, t, vol, local)
        if complete:
            break
        if t.uid is not None:  # the stop itself left something behind: go round once more
            await sidecar.start(ctx, t, vol, t.uid)
    else:
        raise Unconfirmed(t.tenant, f"{t.tenant}: stopping its sidecar keeps leaving bytes that are not in the bucket")
    if await _whole(ctx, t, vol, local):
        recorded = {db: ltx.hex16(txid) for db, txid in local.items()}
        found = await ctx.on_engine(marker.read, vol.marker)
        if found is not None:
            rest = found.confirmed().at_rest(recorded)
            await ctx.on_engine(marker.write, vol.marker, rest if await _flush(ctx, t, vol) else rest.stale())
        await _record(ctx, t, to, generation, t.claim.epoch, recorded)
    else:
        await _record(ctx, t, to, generation, t.owner.record.data_epoch, dict(t.owner.record.positions))


async def _flush(ctx: Context, t: HeldTenant, vol: Volume) -> bool:
    """What is about to be called at rest is on the disk: it may go on after a power cut.

    False: its file system has stopped after an error (a full disk's), so the disk is behind what could be read; the
    bucket has all of that, so nothing is lost but this volume. Raises Unconfirmed.
    """
    try:
        await ctx.on_engine(volume.flush, vol, await ctx.on_engine(volume.existing, vol, t.claim.databases))
    except OSError as e:
        if e.errno in (errno.EIO, errno.EROFS):
            return False
        raise Unconfirmed(t.tenant, f"{t.tenant}: not released: its volume cannot be flushed: {e}") from e
    return True


async def _whole(ctx: Context, t: HeldTenant, vol: Volume, local: dict[str, int]) -> bool:
    """Whether this epoch holds everything that the tenant has. Raises Unconfirmed if it does not and nothing else does.

    An epoch whose files were restored and not all confirmed yet is dropped: its predecessor has them.
    """
    needed = {*await ctx.on_engine(volume.existing, vol, t.claim.databases), *t.sources}
    if needed <= set(local):
        return bool(local)
    if t.sources and t.claim.kind != "carried" and t.owner.record.data_epoch != t.claim.epoch:
        return False
    which = ", ".join(sorted(needed - set(local)))
    raise Unconfirmed(t.tenant, f"{t.tenant}: not released: nothing of {which} is in the bucket, and no sidecar runs")


async def _record(
    ctx: Context, t: HeldTenant, to: To, generation: int | None, data_epoch: int, recorded: dict[str, str]
) -> None:
    changes: dict[str, object] = {}
    if t.claim.restore_id and data_epoch == t.claim.epoch:  # else what was asked for is not carried out
        changes["restore_id"] = t.claim.restore_id
    if generation is not None:
        changes["observed_generation"] = generation
    await write_owner(ctx, t, state=to, data_epoch=data_epoch, positions=recorded, reason="", message="", **changes)


async def _confirm_last(ctx: Context, t: HeldTenant, vol: Volume) -> None:
    """Every declared file that exists, also one that appeared late. Raises Unconfirmed with how much is missing."""
    until, why = ctx.monotonic() + ctx.bounds.confirm_s, ""
    waiting = await ctx.on_engine(volume.existing, vol, t.claim.databases)
    while waiting:
        left = until - ctx.monotonic()
        if left <= 0:
            raise await _unconfirmed(ctx, t, waiting, why)
        answers = await asyncio.gather(
            *(sidecar.confirmed_within(t, (db,), left) for db in waiting), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Unconfirmed):
                raise answer
            why = str(answer) if isinstance(answer, Unconfirmed) else why
        waiting = tuple(db for db, a in zip(waiting, answers, strict=True) if isinstance(a, BaseException))
        if waiting:
            await asyncio.sleep(_RETRY_S)


async def _unconfirmed(ctx: Context, t: HeldTenant, files: tuple[str, ...], why: str) -> Unconfirmed:
    behind: dict[str, int] = {}
    for db in files:
        try:
            seen = await sidecar.look(t, db, ctx.bounds.poll_s)
        except (SocketError, TimeoutError):
            seen = None
        if seen is not None:
            behind[db] = seen.txid - seen.replicated_txid
    much = ", ".join(f"{db}: {n} transactions" for db, n in behind.items()) or "how much is not known"
    return Unconfirmed(
        t.tenant,
        f"{t.tenant}: not released: what it wrote is not all in the bucket ({much}). {why}."
        " Nothing is dropped: its sidecar goes on; repeat this when the bucket answers",
        behind=behind,
    )


async def _in_bucket(ctx: Context, t: HeldTenant, vol: Volume, local: dict[str, int]) -> bool:
    """Whether a stopped volume is exactly what the bucket holds. Raises Unconfirmed."""
    try:
        where = await ctx.on_store(positions, ctx.store, t.tenant, t.claim.epoch, local, vol, local)
    except BucketError as e:
        raise Unconfirmed(t.tenant, f"{t.tenant}: not released: whether its last byte is there is unknown: {e}") from e
    return all(p is Position.EQUAL for p in where.values())


async def left(ctx: Context, tenant: str) -> tuple[int, bool]:
    """What is left here of a tenant that is not held: the epoch that its record names this node for (0: it does not),
    and whether its volume is here and was never released.

    Then an agent and its containers died: the volume may have the only copy of its last bytes. Raises the store's
    errors.
    """
    found = await ctx.on_store(cas.read, ctx.store, keys.owner(tenant), Owner)
    if found is None or found.record.node != ctx.me.node or not _free(ctx.me, found.record, None):
        return 0, False
    unreleased = found.record.state in {"claimed", "running"}
    volume_here = unreleased and await ctx.on_engine(ctx.volumes.find, tenant) is not None
    return found.record.epoch, volume_here


async def release_unheld(ctx: Context, tenant: str, to: To, generation: int | None) -> None:
    """A tenant that nothing runs of here: mark its record, if it is free. Nothing to do without one.

    A record whose session is over is closed as it is: the next claim makes its cut as after a failover.
    """
    for _ in range(3):
        found = await ctx.on_store(cas.read, ctx.store, keys.owner(tenant), Owner)
        if found is None:
            return
        owner, me, lease = found.record, ctx.me, None
        if owner.state not in rules.IDLE and owner.node != me.node:
            lease = await ctx.on_store(cas.read, ctx.store, keys.node(owner.node), Lease)
        if not _free(me, owner, lease.record if lease else None):
            message = f"{tenant}: node {owner.node} holds it"
            raise OwnedElsewhere(tenant, message, node=owner.node, epoch=owner.epoch)
        changes = _closing(me, owner, to, generation)
        if not changes:
            return
        try:
            await ctx.on_store(
                cas.write, ctx.store, keys.owner(tenant), new_owner(owner, **changes), found.etag,
                give_up=cas.backoff(),
            )  # fmt: skip
        except Conflict:
            continue
        except Ambiguous as e:
            raise Unconfirmed(tenant, f"{tenant}: whether it is {to} is not known yet: {e}; repeat it") from e
        return
    raise Unconfirmed(tenant, f"{tenant}: others change its record at the same time; repeat it")


def _closing(me: rules.Me, owner: Owner, to: To, generation: int | None) -> dict[str, object]:
    """What has to change in a free record; nothing if it says so already. What is lost stays lost.

    A wish that was overtaken changes nothing: a late tombstone would have the next life start empty.
    """
    changes: dict[str, object] = {}
    if generation is not None and generation < owner.observed_generation:
        return changes
    if owner.state != to and (to == "purged" or owner.state not in rules.IDLE):
        changes = {"state": to, "node": me.node, "session": me.session, "reason": "", "message": ""}
    if generation is not None and generation > owner.observed_generation:
        changes["observed_generation"] = generation
    return changes


def _free(me: rules.Me, owner: Owner, lease: Lease | None) -> bool:
    mine = owner.node == me.node and owner.session <= me.session
    return owner.state in rules.IDLE or mine or rules.session_over(owner, lease)
