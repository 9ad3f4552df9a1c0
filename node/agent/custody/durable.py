"""`POST /durable`: everything committed so far is in the bucket, and this epoch still owns the tenant."""

from __future__ import annotations

from node.agent.custody import sidecar
from node.agent.custody.context import Context
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.held import HeldTenant, names, ousted
from node.agent.custody.rounds import Rounds
from node.bucket import keys
from node.bucket.errors import BucketError, Missing
from node.bucket.records import Owner


async def durable(ctx: Context, t: HeldTenant) -> None:
    """Confirm every declared file, *then* read the owner record, then ask the session. Raises Unconfirmed (unknown).

    Both steps run in rounds that serve everyone who waits; the reads overlap the next confirmations.
    """
    if t.owner.record.data_epoch != t.claim.epoch:
        which = ", ".join(t.missing)
        message = f"{t.tenant}: its first snapshot is not confirmed yet" + (f"; missing: {which}" if which else "")
        raise Unconfirmed(t.tenant, message)
    until = ctx.monotonic() + ctx.bounds.durable_s
    if t.owner_reads is None:
        t.owner_reads = Rounds(lambda: _still_ours(ctx, t), ctx.monotonic)
    try:
        await sidecar.confirmed_within(t, t.claim.databases, ctx.bounds.durable_s)
        await t.owner_reads.settled(max(until - ctx.monotonic(), 0.1))
    except TimeoutError:
        message = f"{t.tenant}: not confirmed within {ctx.bounds.durable_s:g} s: it may or may not be in the bucket"
        raise Unconfirmed(t.tenant, message) from None
    except ConnectionAbortedError as e:
        raise Unconfirmed(t.tenant, f"{t.tenant}: {e}; it may or may not be in the bucket") from e
    if not ctx.session().live() or ctx.session().session != t.claim.session:
        raise Unconfirmed(t.tenant, f"{t.tenant}: this node's session ended meanwhile; it may or may not count")
    t.last_confirmed = ctx.now()


async def _still_ours(ctx: Context, t: HeldTenant) -> None:
    """The record, read now, names this epoch, session and data epoch. Raises Unconfirmed, OwnedElsewhere."""
    try:
        found = await ctx.on_store(ctx.store.get, keys.owner(t.tenant))
    except Missing:
        raise ousted(t.tenant, None, t.claim.epoch) from None
    except BucketError as e:
        raise Unconfirmed(t.tenant, f"{t.tenant}: whether it is still ours is not known: {e}") from e
    ours = found.etag == t.owner.etag  # our own last write: it names us
    owner = t.owner.record if ours else Owner.decode(found.body, key=found.key)
    if not names(ctx.me, owner, t.claim.epoch) or owner.state != "running" or owner.data_epoch != t.claim.epoch:
        raise ousted(t.tenant, owner, t.claim.epoch)
