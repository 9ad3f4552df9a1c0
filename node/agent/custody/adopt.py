"""Going on with what runs: after an agent's restart, and in a new session of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from node.agent.custody import sidecar, take
from node.agent.custody.context import Context
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.held import HeldTenant, new_owner, ousted
from node.agent.custody.source import Source
from node.agent.ports import Container, SidecarSpec, Volume
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import Ambiguous, Conflict
from node.bucket.records import Lineage, Owner


async def adopt(ctx: Context, a: Assignment, containers: Sequence[Container], uid: int) -> HeldTenant | None:
    """The tenant as it runs, its record naming this session. None: not ours, kill what runs.

    A record of an earlier session of this machine is CASed to this one, at the same epoch: its containers were frozen
    before this session began. Every adoption writes the record anew, so that what a dead agent still has under way
    can no longer be applied. Raises Unconfirmed, and the store's errors: then nothing is known, so kill nothing.
    """
    streaming = next((c for role in ("sidecar", "worker") for c in containers if c.role == role and c.running), None)
    vol = await ctx.on_engine(ctx.volumes.find, a.tenant)
    if streaming is None or vol is None:
        return None
    for _ in range(3):
        found = await ctx.on_store(cas.read, ctx.store, keys.owner(a.tenant), Owner)
        if found is None or not _ours(ctx, found.record, streaming):
            return None
        try:
            held = await write_session(ctx, a.tenant, found)
        except Conflict:
            continue
        t = await _held(ctx, a, held, vol, uid)
        if streaming.role == "sidecar":
            sidecar.attach(ctx, t, _spec(ctx, t, streaming, vol, uid), streaming.name)
        else:
            await sidecar.start(ctx, t, vol, uid)  # it died while nobody looked; its worker goes on
        return t
    raise Unconfirmed(a.tenant, f"{a.tenant}: its record keeps changing; it is not known whether this node holds it")


def _ours(ctx: Context, owner: Owner, streaming: Container) -> bool:
    me = ctx.me
    return (
        owner.node == me.node
        and owner.session in {streaming.session, me.session}
        and owner.session <= me.session
        and owner.epoch == streaming.epoch
        and owner.state in {"claimed", "running"}
    )


async def write_session(ctx: Context, tenant: str, found: Held[Owner]) -> Held[Owner]:
    """The record with this session and a new nonce. Raises Conflict, Unconfirmed."""
    record = new_owner(found.record, session=ctx.me.session)
    try:
        return await ctx.on_store(cas.write, ctx.store, keys.owner(tenant), record, found.etag, give_up=cas.backoff())
    except Ambiguous as e:
        raise Unconfirmed(tenant, f"{tenant}: whether this session holds it is not known yet: {e}") from e


async def _held(ctx: Context, a: Assignment, held: Held[Owner], vol: Volume, uid: int) -> HeldTenant:
    claim = take.claim_of(a, held.record, "adopted", held.record.epoch, "adopted")
    asked, claim = claim.restore_id, replace(claim, restore_id=None)  # what runs may be from before it
    t = HeldTenant(claim, held, {}, volume=vol, uid=uid, ready=True)
    if not claim.settled:
        lineage = await ctx.on_store(cas.read, ctx.store, keys.lineage(a.tenant, claim.epoch), Lineage)
        if lineage is not None:
            t.lineage, t.sources = lineage, sources_of(lineage.record)
            claim = replace(claim, restore_id=asked if lineage.record.restore_id == asked else None)
        t.claim = replace(claim, kind="adopted" if t.sources else "born")
    return t


def _spec(ctx: Context, t: HeldTenant, streaming: Container, vol: Volume, uid: int) -> SidecarSpec:
    return SidecarSpec(
        tenant=t.tenant, epoch=t.claim.epoch, session=streaming.session, uid=uid, volume=vol,
        config=sidecar.config_folder(ctx, t),
    )  # fmt: skip


def sources_of(record: Lineage) -> dict[str, Source]:
    """Where an epoch's files came from, as its lineage says."""
    return {
        db: Source(record.parent_tenant, record.epochs.get(db, record.parent_epoch), int(txid, 16))
        for db, txid in record.cut.items()
    }


async def resession(ctx: Context, t: HeldTenant) -> None:
    """CAS a tenant that this agent holds to the machine's new session. Raises OwnedElsewhere, Unconfirmed."""
    for _ in range(3):
        found = await ctx.on_store(cas.read, ctx.store, keys.owner(t.tenant), Owner)
        owner, me = (found.record if found else None), ctx.me
        ours = owner and owner.node == me.node and owner.epoch == t.claim.epoch and owner.session <= me.session
        if found is None or not ours or found.record.state not in {"claimed", "running"}:
            raise ousted(t.tenant, owner, t.claim.epoch)
        try:
            t.owner = await write_session(ctx, t.tenant, found)
        except Conflict:
            continue
        t.claim = replace(t.claim, session=t.owner.record.session)
        return
    raise Unconfirmed(t.tenant, f"{t.tenant}: its record keeps changing; it is not known whether this node holds it")
