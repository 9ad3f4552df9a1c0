"""The rules of ownership, each broken in one way: every one of these must show, or the simulator sees nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

from fleet.core import silence
from node.agent.custody import (
    adopt,
    claim,
    collect,
    durable,
    fleetfile,
    garbage,
    held,
    marker,
    release,
    restore,
    settle,
    sidecar,
    take,
)
from node.agent.custody import position as positions
from node.agent.custody import session as session_rules
from node.agent.custody.claim import Continue, Fresh
from node.agent.custody.context import Context
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.garbage import Fate
from node.agent.custody.held import HeldTenant
from node.agent.custody.registrar import Registrar
from node.agent.custody.session import Session
from node.bucket import cas, keys, liveness
from node.bucket.errors import Ambiguous, BucketError, Conflict
from node.bucket.records import Lease, Owner
from tests.sim.faults import KINDS, PAUSE
from tests.sim.seams import in_thread
from tests.sim.world import AS_IS, Rules

Broken = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Variant:
    """One rule that is not kept. `kinds`: what has to go wrong for it to show."""

    name: str
    broken: Broken
    kinds: Mapping[str, int] = field(default_factory=lambda: KINDS)
    rules: Rules = AS_IS
    seeds: int = 150
    solo: bool | None = None


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
_found = fleetfile._found


def _from_the_end(session: Session, *, started: float, now: float, **more: Any) -> Session:
    return _renewed(session, started=now, now=now, **more)


def _late_counts(session: Session, *, started: float, now: float, mode: Any, seq: int, etag: str) -> Session:
    after = replace(
        session, seq=seq, etag=etag, mode=mode, started=now, deadline=now + session.ttl_s - session.margin_s
    )
    if after.state in ("revoked", "gone"):
        return after
    return replace(after, state=session_rules.next_state(after.state, "renewed"), frozen_at=None, reason="")


def _half_window(seen: Any, lease: Lease, *, began: float, ended: float) -> Any:
    return _look(seen, lease.model_copy(update={"ttl_s": lease.ttl_s / 2, "margin_s": 0.0}), began=began, ended=ended)


def _solo_too(seen: Any, lease: Lease, *, began: float, ended: float) -> Any:
    return _look(seen, lease.model_copy(update={"mode": "shared"}), began=began, ended=ended)


def _no_margin(store: Any, mode: Any) -> Any:
    found = _found(store, mode)
    if found.record.margin_s:
        bare = found.record.model_copy(update={"margin_s": 0.0, "nonce": cas.new_nonce()})
        return cas.write(store, keys.FLEET, bare, found.etag, give_up=cas.backoff())
    return found


def _lives_in(*states: str) -> Any:
    def live(self: Session, now: float) -> bool:
        return self.state in states or _live(self, now)

    return live


async def _delete_lease(self: Registrar, session: Session, ours: Lease, pending: Any) -> None:
    await in_thread(lambda: self._store().delete([self._key]))


# ---- claims

_decide = claim.decide
_take_decide = take._decide
_take_sources = take._sources


def _same_epoch(me: Any, owner: Owner | None, *rest: Any) -> Continue | Fresh:
    found = _decide(me, owner, *rest)
    return found if owner is None or isinstance(found, Continue) else Fresh(owner.epoch, found.reason)


def _differs(lease: Any, session: int) -> bool:
    return bool(lease.session != session or lease.state == "gone")


def _earlier_leases() -> AbstractContextManager[None]:
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

    return replaced((cas, "read", cached), (liveness, "session_over", _differs))()


def _prefetching() -> AbstractContextManager[None]:
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


async def _empty_when_unknown(ctx: Context, a: Any, t: HeldTenant, *, purged: bool) -> Any:
    try:
        return await _take_sources(ctx, a, t, purged=purged)
    except BucketError:
        return take._Found({})


def _any_boot(me: Any, owner: Owner | None, volume: Any, where: Any, restore: Any) -> Continue | Fresh:
    if volume is not None:
        volume = replace(volume, boot_id=me.boot_id)
    return _decide(me, owner, volume, where, restore)


# ---- writes with a doubtful answer


def _once(store: Any, key: str, record: Any, etag: str | None, **_: Any) -> Any:
    body = record.encode()
    try:
        now = store.create(key, body) if etag is None else store.replace(key, body, etag)
    except Ambiguous:
        found = store.get(key)
        if cas._nonce_of(found.body) != record.nonce:
            raise Conflict(f"{key}: not seen", key=key) from None
        now = found.etag
    return cas.Held(record, now)


async def _fresh_etag(ctx: Context, t: HeldTenant, **changes: Any) -> Owner:
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


async def _always_ours(ctx: Context, t: HeldTenant) -> None:
    return None


async def _asked_before(ctx: Context, t: HeldTenant) -> None:
    """The owner record is read, then the upload is awaited."""
    if t.owner.record.data_epoch != t.claim.epoch:
        raise Unconfirmed(t.tenant, "not settled")
    await durable._still_ours(ctx, t)
    await sidecar.confirmed_within(t, t.claim.databases, ctx.bounds.durable_s)


async def _not_awaited(ctx: Context, t: HeldTenant, awaited: Any, *, forever: bool) -> dict[str, int]:
    return dict.fromkeys(awaited, 0)


_settle_confirmed = settle._confirmed


async def _first_file(ctx: Context, t: HeldTenant, awaited: Any, *, forever: bool) -> dict[str, int]:
    return await _settle_confirmed(ctx, t, awaited[:1], forever=forever)


async def _not_confirmed(ctx: Context, t: HeldTenant, vol: Any) -> None:
    return None


async def _in_bucket(*_: Any) -> bool:
    return True


# ---- volumes

_mark = restore._mark
_prepare = restore.prepare


def _mark_at_once(t: HeldTenant, me: Any, vol: Any) -> None:
    _mark(t, me, vol)
    found = marker.read(vol.marker)
    if found is not None:
        marker.write(vol.marker, found.confirmed())


async def _mark_restored(ctx: Context, t: HeldTenant, *rest: Any) -> Any:
    prepared = await _prepare(ctx, t, *rest)
    found = marker.read(prepared.volume.marker)
    if found is not None:
        marker.write(prepared.volume.marker, found.confirmed())
    return prepared


# ---- collecting


def _all_older(holdings: Any, history: Any, *, data_epoch: int, horizon: float) -> list[Fate]:
    return [Fate(h.epoch, goes=h.epoch < data_epoch, why="superseded") for h in holdings]


CUTS = {"cut": 5, "store": 3}
REBOOTS = {"reboot": 4, "store": 2, "cut": 1}
PAUSES = {PAUSE: 5, "store": 2}
AGENTS = {"kill_agent": 4, "kill_both": 2, "store": 4, "cut": 2}

VARIANTS = (
    # time
    Variant("no margin", replaced((fleetfile, "_found", _no_margin)), CUTS),
    Variant("the observer's window is short", replaced((silence, "look", _half_window)), {"store": 1, "cut": 2}),
    Variant(
        "the deadline counts from the end of the attempt", replaced((session_rules, "renewed", _from_the_end)), CUTS
    ),
    Variant("a late answer counts", replaced((session_rules, "renewed", _late_counts)), {"cut": 2, "store": 2}),
    Variant("a solo machine is revoked", replaced((silence, "look", _solo_too)), CUTS, solo=True),
    Variant("the observer counts from the begin", nothing, CUTS, Rules(observer_counts_from_begin=True)),
    Variant("revoked under a fresh etag", nothing, CUTS, Rules(revoke_rereads=True)),
    # sessions
    Variant("not frozen at the deadline", replaced((Session, "live", _lives_in("frozen"))), CUTS),
    Variant("thawed before it is settled", replaced((Session, "live", _lives_in("settling"))), AGENTS | CUTS),
    Variant(
        "a session begins before all stands still",
        replaced((Session, "live", _lives_in("starting", "revoked"))),
        AGENTS,
    ),
    Variant(
        "a late start escapes the frozen parent", nothing, CUTS | {"slow_engine": 3}, Rules(late_start_escapes=True)
    ),
    Variant(
        "a clean stop deletes the lease", replaced((Registrar, "farewell", _delete_lease)), {"leave": 4, "store": 3}
    ),
    Variant("another session is a later one", _earlier_leases, AGENTS | {"reboot": 2}),
    Variant(
        "what another holds is adopted",
        replaced((adopt, "_ours", lambda *_: True)),
        {"kill_both": 2, "cut": 3, "suspend": 3},
    ),
    # claims
    Variant("an epoch is used again", replaced((claim, "decide", _same_epoch)), CUTS),
    Variant("the cut is made before the claim", _prefetching, PAUSES),
    Variant("own records are not taken up", replaced((claim, "_mine", lambda *_: False)), AGENTS),
    Variant("unknown is empty", replaced((take, "_sources", _empty_when_unknown)), {"store": 3, "cut": 3}),
    Variant("an unfinished epoch is ignored", replaced((take, "salvage", lambda *_: (0, {}))), {"cut": 2, "reboot": 3}),
    Variant("a doubtful write is looked for once", replaced((cas, "write", _once)), {"store": 4, "cut": 2}),
    Variant(
        "a write names the etag it just read",
        replaced(
            (take, "write_owner", _fresh_etag),
            (settle, "write_owner", _fresh_etag),
            (release, "write_owner", _fresh_etag),
        ),
        PAUSES,
    ),
    # volumes
    Variant(
        "the position is not compared",
        replaced((claim, "decide", _any_boot), (positions, "not_behind", lambda _: True)),
        REBOOTS,
    ),
    Variant("a volume goes on after a power cut", replaced((claim, "decide", _any_boot)), REBOOTS),
    Variant(
        "the marker is written when the volume is made",
        replaced((restore, "_mark", _mark_at_once)),
        AGENTS | {"full": 3, "cut": 4},
    ),
    Variant("every old volume is deleted", replaced((take, "disposable", lambda *_, **__: True)), CUTS),
    # confirming
    Variant("no owner is read after the upload", replaced((durable, "_still_ours", _always_ours)), PAUSES),
    Variant("the owner is read before the upload", replaced((durable, "durable", _asked_before)), PAUSES),
    Variant("an epoch is named before it is confirmed", replaced((settle, "_confirmed", _not_awaited)), CUTS | REBOOTS),
    Variant("one file of several is confirmed", replaced((settle, "_confirmed", _first_file)), CUTS | REBOOTS),
    Variant(
        "released before the last byte is there",
        replaced((release, "_confirm_last", _not_confirmed), (release, "_in_bucket", _in_bucket)),
        {"move": 4, "store": 3},
    ),
    # collecting
    Variant("every older epoch is collected", replaced((garbage, "judge", _all_older)), CUTS),
    Variant(
        "who is not settled collects",
        replaced((collect, "_held", lambda *_: True), (garbage, "judge", _all_older)),
        CUTS,
    ),
)
