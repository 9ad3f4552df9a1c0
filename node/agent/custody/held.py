"""A tenant that this node holds: its claim, our last write of its owner record, its sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from node.agent.custody.claim import Me
from node.agent.custody.context import Context
from node.agent.custody.errors import OwnedElsewhere, Unconfirmed
from node.agent.custody.litestream import ControlSocket, Synced
from node.agent.custody.rounds import Rounds
from node.agent.custody.source import Sources
from node.agent.custody.values import Claim
from node.agent.custody.watchdog import Watch
from node.agent.ports import SidecarSpec, Volume
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import Ambiguous, Conflict
from node.bucket.records import Lineage, Owner


@dataclass(slots=True)
class Sidecar:
    """A sidecar that streams: what it was made from, its socket, and the rounds that confirm through it."""

    spec: SidecarSpec
    name: str
    socket: ControlSocket
    syncs: Mapping[str, Rounds[int]]
    looks: Mapping[str, Rounds[Synced | None]]
    watch: Watch
    restarts: int = 0
    # Each file's transaction when the bucket was last compared with what is here, and when that was.
    compared: Mapping[str, int | None] | None = None
    compared_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Wake:
    """When a tenant wants to run next, not yet in its record; None: never."""

    at: float | None


@dataclass(slots=True)
class HeldTenant:
    """Mutable, of one event loop. `owner` is the record as we last wrote it; a CAS of ours names its ETag."""

    claim: Claim
    owner: Held[Owner]
    sources: Sources
    volume: Volume | None = None
    sidecar: Sidecar | None = None
    owner_reads: Rounds[None] | None = None
    missing: tuple[str, ...] = ()
    last_confirmed: float | None = None
    lag_s: float | None = None
    uid: int | None = None
    accept_loss: bool = False
    lineage: Held[Lineage] | None = None
    pending: Owner | None = None
    # Its disk had no room for a checkpoint; and whether its sidecar is told to make any.
    full: bool = False
    checkpoints: bool = True
    wake: Wake | None = None
    wake_not_before: float = 0.0
    waking: asyncio.Task[None] | None = None
    ready: bool = False  # its volume is this claim's: nobody may clear it any more
    record_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sidecar_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def tenant(self) -> str:
        """Its name."""
        return self.claim.tenant


def names(me: Me, owner: Owner, epoch: int) -> bool:
    """Whether a record says that this node holds the tenant in this session and epoch."""
    return owner.node == me.node and owner.session == me.session and owner.epoch == epoch


def new_owner(owner: Owner, **changes: Any) -> Owner:
    """The next record: what a newer version added is kept, the nonce is new."""
    return owner.model_copy(update={"nonce": cas.new_nonce(), **changes})


async def write_owner(ctx: Context, t: HeldTenant, **changes: Any) -> Owner:
    """CAS of the owner record on the ETag of our own last write.

    After a refusal the record is looked at: one that still names this session and epoch is an earlier write of our own
    whose answer was lost, and is taken up. A repeat after Unconfirmed sends the same bytes. Raises OwnedElsewhere.
    """
    async with t.record_lock:
        return await _write(ctx, t, changes)


async def take_back(ctx: Context, t: HeldTenant) -> None:
    """Make the record say again that the tenant is held, if it says otherwise or what it says is in doubt.

    Asked once no other write of it is under way: one that is may settle both. Raises OwnedElsewhere, Unconfirmed.
    """
    async with t.record_lock:
        if t.pending is not None or t.owner.record.state not in ("claimed", "running"):
            await _write(ctx, t, {"state": "running" if t.claim.settled else "claimed"})


async def _write(ctx: Context, t: HeldTenant, changes: dict[str, Any]) -> Owner:
    waiting = t.wake
    if waiting is not None:
        changes = {"wake_at": waiting.at, **changes}
    wanted = new_owner(t.owner.record, **changes)
    if t.pending is not None and _same(t.pending, wanted):
        wanted = t.pending
    for _ in range(3):
        t.pending = wanted
        try:
            t.owner = await ctx.on_store(
                cas.write, ctx.store, keys.owner(t.tenant), wanted, t.owner.etag, give_up=cas.backoff()
            )
        except Ambiguous as e:
            raise Unconfirmed(t.tenant, f"{t.tenant}: the owner record may or may not say so: {e}; repeat it") from e
        except Conflict:
            t.owner = await own_record(ctx, t)
            wanted = new_owner(t.owner.record, **changes)
        else:
            t.pending = None
            if t.wake is waiting:
                t.wake = None
            return t.owner.record
    raise Unconfirmed(t.tenant, f"{t.tenant}: its owner record keeps changing under this node; repeat it")


async def own_record(ctx: Context, t: HeldTenant) -> Held[Owner]:
    """The record, read, if it names this session and this tenant's epoch. Raises OwnedElsewhere."""
    found = await ctx.on_store(cas.read, ctx.store, keys.owner(t.tenant), Owner)
    if found is None or not names(ctx.me, found.record, t.claim.epoch):
        raise ousted(t.tenant, found.record if found else None, t.claim.epoch)
    return found


def ousted(tenant: str, owner: Owner | None, epoch: int) -> OwnedElsewhere:
    """The error for a record that does not name us any more."""
    if owner is None:
        return OwnedElsewhere(
            tenant, f"{tenant}: its owner record is gone; this node held epoch {epoch}", node="", epoch=0
        )
    return OwnedElsewhere(
        tenant,
        f"{tenant}: node {owner.node} holds epoch {owner.epoch} (session {owner.session}, {owner.state});"
        f" this node held epoch {epoch} and stops it",
        node=owner.node,
        epoch=owner.epoch,
    )


def _same(a: Owner, b: Owner) -> bool:
    return a.model_copy(update={"nonce": ""}) == b.model_copy(update={"nonce": ""})
