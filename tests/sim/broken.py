"""Rules of ownership as somebody might have written them: what a broken variant puts in the place of the right ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from fleet.core import leading, silence
from fleet.leases import Leases
from node.agent.custody import (
    claim,
    durable,
    fleetfile,
    held,
    marker,
    purge,
    release,
    restore,
    settle,
    sidecar,
    take,
)
from node.agent.custody import session as session_rules
from node.agent.custody.claim import Continue, Fresh
from node.agent.custody.context import Context
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.garbage import Fate
from node.agent.custody.guard import Guard
from node.agent.custody.held import HeldTenant
from node.agent.custody.registrar import Registrar
from node.agent.custody.session import Session
from node.bucket import cas, keys, liveness
from node.bucket.errors import Ambiguous, BucketError, Conflict
from node.bucket.records import Lease, Owner
from tests.sim.seams import in_thread

Broken = Callable[[], AbstractContextManager[None]]


@contextmanager
def nothing() -> Iterator[None]:
    """What the world itself does otherwise."""
    yield


def replaced(*table: tuple[object, str, Any]) -> Broken:
    """Put these in place of what is there."""

    @contextmanager
    def broken() -> Iterator[None]:
        with ExitStack() as stack:
            for where, name, value in table:
                stack.enter_context(patch.object(where, name, value))
            yield

    return broken


# ---- time

_renewed = session_rules.renewed
_look = liveness.look
_live = Session.live
_revoke = Leases._revoke
_found = fleetfile._found


def from_the_end(session: Session, *, started: float, now: float, **more: Any) -> Session:
    return _renewed(session, started=now, now=now, **more)


def late_counts(session: Session, *, started: float, now: float, mode: Any, seq: int, etag: str) -> Session:
    after = replace(
        session, seq=seq, etag=etag, mode=mode, started=now, deadline=now + session.ttl_s - session.margin_s
    )
    if after.state in ("revoked", "gone"):
        return after
    return replace(after, state=session_rules.next_state(after.state, "renewed"), frozen_at=None, reason="")


def half_window(seen: Any, lease: Lease, *, began: float, ended: float) -> Any:
    return _look(seen, lease.model_copy(update={"ttl_s": lease.ttl_s / 2, "margin_s": 0.0}), began=began, ended=ended)


def from_the_begin(seen: Any, lease: Lease, *, began: float, ended: float) -> Any:
    return _look(seen, lease, began=began, ended=began)


async def revoke_anew(self: Leases, node: str, read: Any, silent_s: float, track: Any) -> float | None:
    again = None
    with suppress(BucketError):
        again = await self._bucket.read(keys.node(node), Lease)
    return await _revoke(self, node, again or read, silent_s, track)


def solo_too(track: Any, lease: Lease, *, began: float, ended: float) -> Any:
    return silence.after_read(track, lease.model_copy(update={"mode": "shared"}), began=began, ended=ended)


def no_margin(store: Any, mode: Any) -> Any:
    found = _found(store, mode)
    if found.record.margin_s:
        bare = found.record.model_copy(update={"margin_s": 0.0, "nonce": cas.new_nonce()})
        return cas.write(store, keys.FLEET, bare, found.etag, give_up=cas.backoff())
    return found


def lives_in(*states: str) -> Any:
    def live(self: Session, now: float) -> bool:
        return self.state in states or _live(self, now)

    return live


async def delete_lease(self: Registrar, session: Session, ours: Lease, pending: Any) -> None:
    with suppress(BucketError):
        await in_thread(lambda: self._store().delete([self._key]))


async def begin_first(self: Guard) -> None:
    """The write comes first; whatever still runs is frozen by what follows."""
    plan = await self._registrar.plan(self._session)
    self._session, self._pending, self._fleet_id = plan.session, None, plan.fleet_id
    sent = replace(plan.write, started=self._now())
    try:
        etag = await self._registrar.definite(sent, ttl_s=plan.session.ttl_s)
    except Conflict:
        return
    self._lease, self._attempted = sent.lease, sent.started
    self._move(
        session_rules.begun(self._session, number=sent.lease.session, etag=etag, started=sent.started, now=self._now())
    )


# ---- claims

_decide = claim.decide
_take_decide = take._decide
_take_sources = take._sources


def same_epoch(me: Any, owner: Owner | None, *rest: Any) -> Continue | Fresh:
    found = _decide(me, owner, *rest)
    return found if owner is None or isinstance(found, Continue) else Fresh(owner.epoch, found.reason)


_lineage = keys.lineage
_comparable = claim.comparable


def any_lineage(tenant: str, epoch: int) -> str:
    """One epoch, several lineages."""
    return _lineage(tenant, epoch).replace(".json", f"-{cas.new_nonce()[-8:]}.json")


def any_epoch(me: Any, owner: Owner | None, volume: Any, wish: Any) -> bool:
    """Whatever epoch the data is in."""
    if owner is None or volume is None:
        return False
    return _comparable(me, owner.model_copy(update={"data_epoch": owner.epoch}), volume, wish)


def differs(lease: Any, session: int) -> bool:
    return bool(lease.session != session or lease.state == "gone")


def earlier_leases() -> AbstractContextManager[None]:
    """A claim goes by a lease that was read before the owner record, once."""
    known: dict[tuple[str, str], Any] = {}
    read = cas.read

    def cached(store: Any, key: str, kind: Any) -> Any:
        if kind is not Lease:
            return read(store, key, kind)
        at = (store._who, key)
        if at not in known or store._who.startswith("c"):
            known[at] = read(store, key, kind)
        return known[at]

    return replaced((cas, "read", cached), (liveness, "session_over", differs))()


def prefetching() -> AbstractContextManager[None]:
    """The cut is made before the claim."""
    found: dict[int, Any] = {}

    async def decide(ctx: Context, a: Any, me: Any, owner: Any) -> Any:
        decision = await _take_decide(ctx, a, me, owner)
        if isinstance(decision, Fresh) and owner is not None and owner.record.data_epoch:
            found[id(ctx)] = await ctx.on_store(take._newest, ctx.store, owner.record, a.spec.databases)
        return decision

    async def sources(ctx: Context, a: Any, t: HeldTenant, *, purged: bool) -> Any:
        early = found.pop(id(ctx), None)
        return early if early is not None else await _take_sources(ctx, a, t, purged=purged)

    return replaced((take, "_decide", decide), (take, "_sources", sources))()


async def empty_when_unknown(ctx: Context, a: Any, t: HeldTenant, *, purged: bool) -> Any:
    try:
        return await _take_sources(ctx, a, t, purged=purged)
    except BucketError:
        return take._Found({})


def any_boot(me: Any, owner: Owner | None, volume: Any, *rest: Any) -> Continue | Fresh:
    if volume is not None:
        volume = replace(volume, boot_id=me.boot_id)
    return _decide(me, owner, volume, *rest)


# ---- writes with a doubtful answer


def once(store: Any, key: str, record: Any, etag: str | None, **_: Any) -> Any:
    body = record.encode()
    try:
        now = store.create(key, body) if etag is None else store.replace(key, body, etag)
    except Ambiguous:
        found = store.get(key)
        if cas._nonce_of(found.body) != record.nonce:
            raise Conflict(f"{key}: not seen", key=key) from None
        now = found.etag
    return cas.Held(record, now)


async def fresh_etag(ctx: Context, t: HeldTenant, **changes: Any) -> Owner:
    found = await ctx.on_store(cas.read, ctx.store, keys.owner(t.tenant), Owner)
    wanted = held.new_owner(t.owner.record, **changes)
    try:
        t.owner = await ctx.on_store(
            cas.write, ctx.store, keys.owner(t.tenant), wanted, found.etag if found else None, give_up=cas.backoff()
        )
    except (Ambiguous, Conflict) as e:
        raise Unconfirmed(t.tenant, str(e)) from e
    return t.owner.record


# ---- confirming


async def always_ours(ctx: Context, t: HeldTenant) -> None:
    return None


async def asked_before(ctx: Context, t: HeldTenant) -> None:
    """The owner record is read, then the upload is awaited."""
    if t.owner.record.data_epoch != t.claim.epoch:
        raise Unconfirmed(t.tenant, "not settled")
    await durable._still_ours(ctx, t)
    await sidecar.confirmed_within(t, t.claim.databases, ctx.bounds.durable_s)


async def not_awaited(ctx: Context, t: HeldTenant, awaited: Any, *, forever: bool) -> dict[str, int]:
    return dict.fromkeys(awaited, 0)


_settle_confirmed = settle._confirmed


async def first_file(ctx: Context, t: HeldTenant, awaited: Any, *, forever: bool) -> dict[str, int]:
    return await _settle_confirmed(ctx, t, awaited[:1], forever=forever)


async def not_confirmed(ctx: Context, t: HeldTenant, vol: Any) -> None:
    return None


async def in_bucket(*_: Any) -> bool:
    return True


# ---- volumes

_mark = restore._mark
_prepare = restore.prepare


def mark_at_once(t: HeldTenant, me: Any, vol: Any) -> None:
    _mark(t, me, vol)
    found = marker.read(vol.marker)
    if found is not None:
        marker.write(vol.marker, found.confirmed())


async def mark_restored(ctx: Context, t: HeldTenant, *rest: Any) -> Any:
    prepared = await _prepare(ctx, t, *rest)
    found = marker.read(prepared.volume.marker)
    if found is not None:
        marker.write(prepared.volume.marker, found.confirmed())
    return prepared


# ---- collecting


def all_older(holdings: Any, history: Any, *, data_epoch: int, horizon: float) -> list[Fate]:
    return [Fate(h.epoch, goes=h.epoch < data_epoch, why="superseded") for h in holdings]


# ---- what operators ask for

_delete_under = purge.delete_under
_release_record = release._record
_take_record = take._record
_claim_of = take.claim_of
_lead = leading.judge


def whatever_is_there(store: Any, prefix: str, batches: int, allowed: Any, *, below: str | None = None) -> Any:
    """Nobody asks whose it is by now."""
    return _delete_under(store, prefix, batches, lambda: None)


def everybodys(store: Any, prefix: str, batches: int, allowed: Any, *, below: str | None = None) -> Any:
    """A prefix that is too short."""
    return _delete_under(store, f"{prefix.split('/')[0]}/", batches, allowed)


def life_goes_on(ctx: Context, a: Any, me: Any, found: Any, decision: Any) -> Owner:
    """A tombstone is taken for a release."""
    if found is not None and found.record.state == "purged":
        found = replace(found, record=found.record.model_copy(update={"state": "released"}))
    return _take_record(ctx, a, me, found, decision)


async def never_purged(ctx: Context, a: Any, t: HeldTenant, *, purged: bool) -> Any:
    return await _take_sources(ctx, a, t, purged=False)


def the_newest(store: Any, a: Any, epoch: int) -> Any:
    """Not the moment that was asked for."""
    found = cas.read(store, keys.owner(a.tenant), Owner)
    assert found is not None
    return take._newest(store, found.record, a.spec.databases)


def claim_again(a: Any, owner: Owner, *rest: Any) -> Any:
    return replace(_claim_of(a, owner, *rest), restore_id=a.restore.id if a.restore else None)


async def noted_anyhow(ctx: Context, t: HeldTenant, to: Any, generation: Any, data_epoch: int, recorded: Any) -> None:
    """A restore that was given up half-way counts as done."""
    changes: dict[str, object] = {"restore_id": t.claim.restore_id} if t.claim.restore_id else {}
    if generation is not None:
        changes["observed_generation"] = generation
    await held.write_owner(
        ctx, t, state=to, data_epoch=data_epoch, positions=recorded, reason="", message="", **changes
    )


def for_ever(me: Any, seen: Any, found: Any, *, began: float, ended: float) -> Any:
    """Whoever led once leads."""
    now_seen, verdict = _lead(me, seen, found, began=began, ended=ended)
    return now_seen, "theirs" if verdict == "free" and found is not None else verdict
