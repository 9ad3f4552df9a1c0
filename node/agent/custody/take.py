"""Claiming: read the record and the lease, decide, CAS, cut, lineage. The shell around `claim` and `cut`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

from node.agent.custody import claim as rules
from node.agent.custody import cut, ltx, marker, source, travel, volume
from node.agent.custody.claim import Continue, Elsewhere, Fresh, Me, No, VolumeFacts
from node.agent.custody.context import Context
from node.agent.custody.errors import Damaged, Lost, OwnedElsewhere, Refused, Restorable, Unconfirmed
from node.agent.custody.held import HeldTenant, new_owner, write_owner
from node.agent.custody.look import begun_anew, epochs_with_files, objects, positions, salvage
from node.agent.custody.position import Position
from node.agent.custody.source import Source, Sources
from node.agent.custody.values import Claim, Kind
from node.agent.ports import RuntimeFailed
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import Ambiguous, Conflict
from node.bucket.records import Lease, Lineage, Owner
from node.bucket.store import Store

Reason = Literal["born", "failover", "restore", "move", "unclean", "reborn", "fork"]


async def take(ctx: Context, a: Assignment) -> HeldTenant:
    """Claim a tenant for this node and session. Raises Refused, OwnedElsewhere, Lost, Damaged, Unconfirmed."""
    me = ctx.me
    if me.session == 0 or not ctx.session().live():
        message = f"{a.tenant}: this node has no live session, so it may not claim; it will once the bucket answers"
        raise Refused(a.tenant, message, reason="no_session", retryable=True)
    for _ in range(3):
        found = await ctx.on_store(cas.read, ctx.store, keys.owner(a.tenant), Owner)
        decision = await _decide(ctx, a, me, found)
        wanted = _record(ctx, a, me, found, decision)
        try:
            held = await ctx.on_store(
                cas.write, ctx.store, keys.owner(a.tenant), wanted, found.etag if found else None, give_up=cas.backoff()
            )
        except Conflict:
            continue  # somebody was quicker, or an earlier write of ours landed: look again
        except Ambiguous as e:
            raise Unconfirmed(a.tenant, f"{a.tenant}: whether this node claimed it is not known yet: {e}") from e
        if isinstance(decision, Continue):
            return HeldTenant(claim_of(a, held.record, "kept", decision.epoch, "kept"), held, {})
        return await _cut(ctx, a, found, held, decision)
    raise Refused(a.tenant, f"{a.tenant}: others claim it at the same time", reason="contended", retryable=True)


async def _decide(ctx: Context, a: Assignment, me: Me, found: Held[Owner] | None) -> Continue | Fresh:
    owner = found.record if found else None
    if over := rules.overtaken(owner, a.generation):
        raise _down(a.tenant, over.reason, over.why)
    lease: Held[Lease] | None = None
    if owner and owner.state not in rules.IDLE and owner.node != me.node:
        lease = await ctx.on_store(cas.read, ctx.store, keys.node(owner.node), Lease)  # after the owner record
    match rules.freedom(me, owner, lease.record if lease else None, a.restore):
        case Elsewhere(why, node, epoch):
            raise OwnedElsewhere(a.tenant, f"{a.tenant}: {why}", node=node, epoch=epoch)
        case No(reason, why):
            raise _down(a.tenant, reason, why)
        case None:
            pass
    facts, where = await _facts(ctx, a, me, owner)
    decision = rules.decide(me, owner, facts, where, a.restore, a.spec.rpo)
    if owner is None and isinstance(decision, Fresh):
        taken = await ctx.on_store(epochs_with_files, ctx.store, a.tenant)
        decision = replace(decision, epoch=max(taken, default=0) + 1)
    return decision


async def _facts(
    ctx: Context, a: Assignment, me: Me, owner: Owner | None
) -> tuple[VolumeFacts | None, Mapping[str, Position] | None]:
    try:
        vol = await ctx.on_engine(ctx.volumes.find, a.tenant)
    except RuntimeFailed as e:
        if e.reason != "volume_damaged":
            raise
        vol = None  # it is not gone on with; `prepare` sets it aside
    if vol is None:
        return None, None
    facts = await ctx.on_engine(volume.facts, vol, a.spec.databases)
    if owner is None or facts is None or not rules.comparable(me, owner, facts, a.restore):
        return facts, None
    where = await ctx.on_store(positions, ctx.store, a.tenant, facts.epoch, a.spec.databases, vol, facts.local)
    if facts.boot_id != me.boot_id and a.spec.rpo > 0:
        facts = replace(facts, intact=await ctx.on_engine(volume.intact, vol, a.spec.databases))
    return facts, {db: p for db, p in where.items() if db in facts.local or p is not Position.AHEAD}


def _record(ctx: Context, a: Assignment, me: Me, found: Held[Owner] | None, decision: Continue | Fresh) -> Owner:
    if found is None:
        return Owner(
            nonce=cas.new_nonce(), tenant=a.tenant, epoch=decision.epoch, node=me.node, session=me.session,
            state="claimed", data_epoch=0, observed_generation=0,
        )  # fmt: skip
    mine = {"node": me.node, "session": me.session, "epoch": decision.epoch, "reason": "", "message": ""}
    if isinstance(decision, Continue):
        return new_owner(found.record, **mine, state="running")
    if found.record.state == "purged":
        return new_owner(found.record, **mine, state="claimed", data_epoch=0, positions={}, born=decision.epoch)
    carried = decision.epoch if decision.carried else found.record.carried
    return new_owner(found.record, **mine, state="claimed", carried=carried)


def claim_of(a: Assignment, owner: Owner, kind: Kind, epoch: int, reason: str) -> Claim:
    """The claim that an owner record stands for."""
    return Claim(
        tenant=a.tenant,
        epoch=epoch,
        data_epoch=owner.data_epoch,
        session=owner.session,
        kind=kind,
        databases=a.spec.databases,
        rpo_s=a.spec.rpo,
        retention_s=a.spec.retention,
        generation=a.generation,
        reason=reason,
        restore_id=a.restore.id if a.restore and a.restore.id != owner.restore_id else None,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    sources: Sources
    broken: str = ""


async def _cut(
    ctx: Context, a: Assignment, before: Held[Owner] | None, held: Held[Owner], decision: Fresh
) -> HeldTenant:
    """After the CAS: one listing of what there is, the cut, the lineage."""
    owner = held.record
    t = HeldTenant(claim_of(a, owner, "fresh", owner.epoch, decision.reason), held, {})
    try:
        found = await _sources(ctx, a, t, purged=before is not None and before.record.state == "purged")
    except Refused as e:  # claimed for nothing: as it was, but for the epoch
        await write_owner(ctx, t, state="released", reason=e.reason, message=str(e))
        raise
    accepted = a.restore is not None and a.restore.accept_data_loss and rules.wanted(owner, a.restore)
    if found.broken and not accepted and not decision.carried:
        raise await mark_down(ctx, t, found.broken, found.sources)
    kind: Kind = "carried" if decision.carried else "fresh" if found.sources else "born"
    reason = decision.reason
    if kind == "born" and owner.epoch > 1:
        reason = "reborn"
    elif a.restore and a.restore.source and t.claim.restore_id:
        reason = "fork"
    elif reason in ("born", "reborn"):
        reason = "failover"  # somebody's unfinished epoch holds data after all
    t.claim, t.sources = replace(t.claim, kind=kind, reason=reason), found.sources
    record = Lineage(
        nonce=cas.new_nonce(), tenant=a.tenant, epoch=owner.epoch, parent_epoch=0, parent_tenant=a.tenant, cut={},
        node=owner.node, session=owner.session, reason=cast(Reason, reason), at=ctx.now(),
        restore_id=t.claim.restore_id, carried=decision.carried,
    )  # fmt: skip
    t.accept_loss = accepted
    try:
        t.lineage = await ctx.on_store(
            cas.write, ctx.store, keys.lineage(a.tenant, owner.epoch), source.lineage(record, found.sources), None,
            give_up=cas.backoff(),
        )  # fmt: skip
    except (Ambiguous, Conflict) as e:
        raise Unconfirmed(a.tenant, f"{a.tenant}: the lineage of epoch {owner.epoch} may not be written: {e}") from e
    return t


async def _sources(ctx: Context, a: Assignment, t: HeldTenant, *, purged: bool) -> _Found:
    owner, ask = t.owner.record, a.restore if t.claim.restore_id is not None else None
    asked = ask is not None and (ask.at is not None or ask.source is not None)
    if asked or owner.data_epoch:  # once its loss is accepted, what is written from then on is the tenant's
        only = ask.id if ask and asked else None
        epoch, files = await ctx.on_store(begun_anew, ctx.store, owner, a.spec.databases, only)
        if files:
            return _Found(_all_of(owner, epoch, files))
    if asked:
        return await ctx.on_store(_asked_for, ctx.store, a, owner.epoch)
    if purged:
        return _Found({})
    if owner.data_epoch == 0:
        epoch, files = await ctx.on_store(salvage, ctx.store, owner, a.spec.databases)
        why = f"epoch {epoch} holds objects of it, and no whole state" if epoch and not files else ""
        return _Found(_all_of(owner, epoch, files), why)
    return await ctx.on_store(_newest, ctx.store, owner, a.spec.databases)


def _all_of(owner: Owner, epoch: int, files: Mapping[str, int]) -> Sources:
    return {db: Source(owner.tenant, epoch, txid) for db, txid in files.items()}


def _newest(store: Store, owner: Owner, databases: tuple[str, ...]) -> _Found:
    """One listing of a tenant's data epoch, and its cut. If nothing is left there: what a later one got of it."""
    match cut.cut(objects(store, owner.tenant, owner.data_epoch), databases, owner.positions):
        case cut.Whole(files):
            why = ""
        case cut.Broken(why, files):
            pass
    if why and not files:
        later = owner.model_copy(update={"born": max(owner.born, owner.data_epoch + 1)})
        return _Found(_all_of(owner, *salvage(store, later, databases)), why)
    return _Found(_all_of(owner, owner.data_epoch, files), why)


def _asked_for(store: Store, a: Assignment, epoch: int) -> _Found:
    """What a restore request names: another tenant's newest, or any tenant's at a moment."""
    of, at = (a.restore.source, a.restore.at) if a.restore else (None, None)
    if at is not None:
        return _Found(travel.sources(store, of or a.tenant, a.spec.databases, at, None if of else epoch))
    theirs = cas.read(store, keys.owner(of or a.tenant), Owner)
    if theirs is None or theirs.record.data_epoch == 0:
        message = f"{a.tenant}: there is no data of {of} to restore from"
        raise Refused(a.tenant, message, reason="no_point", retryable=False)
    return _newest(store, theirs.record, a.spec.databases)


async def mark_down(ctx: Context, t: HeldTenant, why: str, instead: Sources) -> Lost | Damaged:
    """Record that a tenant's data cannot be restored as it was, and give it up. Answers the error to raise."""
    name, reason = t.tenant, "damaged" if instead else "lost"
    if instead:
        files = {db: ltx.hex16(s.txid) for db, s in instead.items()}
        of_tenant, epoch = source.parent(instead, name)
        at = max((s.at for s in instead.values() if s.at is not None), default=None)
        what = ", ".join(f"{db} up to transaction {int(txid, 16)}" for db, txid in sorted(files.items()))
        message = (
            f"{name}: its newest state cannot be restored: {why}. What can be: {what} of epoch {epoch};"
            f" to accept that loss: fleet restore {name} --accept-data-loss"
        )
        error: Lost | Damaged = Damaged(name, message, instead=Restorable(of_tenant, epoch, at, files))
    else:
        how = f"to start it empty: fleet restore {name} --accept-data-loss"
        message = f"{name}: none of its data can be restored: {why}; {how}"
        error = Lost(name, message)
    await write_owner(ctx, t, state=reason, reason=reason, message=message)
    return error


def _down(tenant: str, reason: str, why: str) -> Refused:
    return Refused(tenant, why if why.startswith(tenant) else f"{tenant}: {why}", reason=reason, retryable=False)


def disposable(found: marker.Marker | None, *, empty: bool) -> bool:
    """Whether an old volume may be deleted: everything in it is in the bucket. Else it is set aside."""
    return empty or (found is not None and found.disposable)
