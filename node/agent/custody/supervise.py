"""Looking after sidecars and records: lag, restarts, foreign writers, and tenants that are no longer ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from node.agent.custody import look as look_up
from node.agent.custody import marker, sidecar, volume, watchdog
from node.agent.custody.context import Context
from node.agent.custody.errors import Refused, SidecarFailed
from node.agent.custody.held import HeldTenant, Sidecar, names
from node.agent.custody.litestream import SocketError
from node.agent.custody.values import CustodyEvent, FileLag, Replication
from node.agent.custody.watchdog import Limits, Seen, Verdict
from node.bucket import cas, keys
from node.bucket.errors import BadRecord, BucketError
from node.bucket.records import Owner

LEAST_BEHIND_S = 60.0


def behind_s(rpo_s: float) -> float:
    """The lag from which a tenant counts as behind."""
    return max(10 * rpo_s, LEAST_BEHIND_S)


async def replication(ctx: Context, t: HeldTenant) -> Replication:
    """How far behind the bucket a tenant is, now. Lag is counted from when the first missing transaction was copied."""
    files = await _files(ctx, t)
    restarts = t.sidecar.restarts if t.sidecar else 0
    if files is None:
        since = None if t.last_confirmed is None else max(ctx.now() - t.last_confirmed, 0.0)
        t.lag_s = since
    else:
        lags = await ctx.on_engine(_lags, ctx, t, files)
        t.lag_s = max(lags, default=0.0) if any(f.txid for f in files.values()) else None
        if t.lag_s == 0:
            t.last_confirmed = ctx.now()
    late = t.lag_s is not None and t.lag_s > behind_s(t.claim.rpo_s)
    unguarded = t.sidecar.watch.unguarded if t.sidecar else False
    return Replication(t.lag_s, t.last_confirmed, late, files or {}, restarts, unguarded)


async def _files(ctx: Context, t: HeldTenant) -> dict[str, FileLag] | None:
    if t.sidecar is None:
        return None

    async def one(db: str) -> FileLag:
        seen = await sidecar.look(t, db, ctx.bounds.poll_s)
        return FileLag(seen.txid, seen.replicated_txid) if seen else FileLag(None, None)

    answers = await asyncio.gather(*map(one, t.claim.databases), return_exceptions=True)
    found: dict[str, FileLag] = {}
    for db, answer in zip(t.claim.databases, answers, strict=True):
        if isinstance(answer, SocketError | TimeoutError | SidecarFailed):
            return None
        if isinstance(answer, BaseException):
            raise answer
        found[db] = answer
    return found


def _lags(ctx: Context, t: HeldTenant, files: dict[str, FileLag]) -> list[float]:
    lags = []
    for db, f in files.items():
        txid, replicated = f.txid or 0, f.replicated_txid or 0
        if txid <= replicated:
            lags.append(0.0)
            continue
        copied = volume.raw_written(t.volume, db, replicated + 1) if t.volume else None
        since = copied if copied is not None else t.last_confirmed
        lags.append(max(ctx.now() - since, 0.001) if since is not None else 0.001)
    return lags


async def look(ctx: Context, t: HeldTenant, limits: Limits) -> list[CustodyEvent]:
    """One look at a tenant's sidecar, and what has to be done about it."""
    streaming = t.sidecar
    if streaming is None:
        return []
    if not ctx.session().live():
        streaming.watch = watchdog.resumed(streaming.watch, ctx.monotonic())
        return []
    found = await replication(ctx, t)
    if t.sidecar is not streaming:
        return []
    if event := await _room(ctx, t, limits) or await _stopped(ctx, t, found):
        return [event]
    limits = await _limits(ctx, t, streaming, limits, found)
    at = ctx.monotonic()
    nexts = watchdog.nexts(streaming.watch, found.files, at, limits)
    skipped = bool(nexts) and await ctx.on_engine(_skipped, t, nexts)
    seen = Seen(at, found.files or None, found.lag_s if found.files else None, _call_s(ctx, streaming), skipped)
    mixed = await _mixed(ctx, t, streaming, limits, found)
    seen = replace(seen, guarded=await ctx.on_engine(_guarded, ctx, t), mixed=mixed)
    streaming.watch, verdicts = watchdog.look(streaming.watch, seen, limits, behind_s=behind_s(t.claim.rpo_s))
    acted = [await _act(ctx, t, limits, verdict, found) for verdict in verdicts]
    return [event for event in acted if event]


async def _mixed(ctx: Context, t: HeldTenant, streaming: Sidecar, limits: Limits, found: Replication) -> bool:
    """Whether somebody else's objects are among the newest: asked now and then of a tenant that has written since.

    Litestream itself does not notice another writer, and confirms what the other overwrites.
    """
    now, txids = ctx.monotonic(), {db: f.txid for db, f in found.files.items()}
    if not txids or t.volume is None:
        return False
    if streaming.compared is None:
        streaming.compared, streaming.compared_at = txids, now
    if txids == streaming.compared or now - streaming.compared_at < limits.compared_every_s(t.claim.rpo_s):
        return False
    streaming.compared_at = now
    asked = ctx.on_store(look_up.alone, ctx.store, t.tenant, t.claim.epoch, tuple(txids), t.volume)
    try:
        alone = await asyncio.wait_for(asked, ctx.bounds.poll_s)
    except (BucketError, TimeoutError, OSError):
        return False  # not known: it is asked again
    if alone:
        streaming.compared = txids
    return not alone


def _guarded(ctx: Context, t: HeldTenant) -> bool:
    """Whether a Litestream holds a reader's lock on the log of each file that has one."""
    if t.volume is None:
        return True
    places = (volume.lock_place(t.volume, db) for db in volume.existing(t.volume, t.claim.databases))
    return all(ctx.locks.held(place, "litestream") for place in places if place is not None)


def _note_foreign(t: HeldTenant) -> None:
    """So that the next claim takes a new prefix, with the volume that is here: the old one's objects are a mixture."""
    found = marker.read(t.volume.marker) if t.volume else None
    if found is not None and t.volume is not None:
        marker.write(t.volume.marker, replace(found, foreign=True))


def _skipped(t: HeldTenant, nexts: Mapping[str, int]) -> bool:
    vol = t.volume
    return vol is not None and not all(volume.raw_file(vol, db, txid).exists() for db, txid in nexts.items())


async def _stopped(ctx: Context, t: HeldTenant, found: Replication) -> CustodyEvent | None:
    """A disk that stopped when its machine's was full, of which nothing is missing in the bucket."""
    if found.lag_s != 0 or not t.claim.settled or not await ctx.on_engine(ctx.volumes.stopped, t.tenant):
        return None
    why = "its disk stopped at an error and has room again: it begins anew from the bucket"
    return CustodyEvent(t.tenant, "volume_stopped", f"{t.tenant}: {why}")


async def _room(ctx: Context, t: HeldTenant, limits: Limits) -> CustodyEvent | None:
    """A full disk has no room for checkpoints: without them everything can still be confirmed. With room, with them."""
    was_full = t.full
    if not (was_full if t.checkpoints else await ctx.on_engine(_roomy, t)):
        return None
    t.checkpoints, t.full = not t.checkpoints, False
    try:
        await sidecar.reconfigure(ctx, t, limits)
    except Refused:
        t.checkpoints, t.full = not t.checkpoints, was_full  # the next look tries again
        return None
    why = "its disk has room again" if t.checkpoints else "its disk is full, so nothing is moved out of its WAL"
    return CustodyEvent(t.tenant, "sidecar_restarted", f"{t.tenant}: its sidecar was restarted: {why}")


def _roomy(t: HeldTenant) -> bool:
    """Whether an eighth of the tenant's disk is free."""
    if t.volume is None:
        return False
    room = os.statvfs(t.volume.data)
    return room.f_bavail * 8 >= room.f_blocks


async def _limits(ctx: Context, t: HeldTenant, streaming: Sidecar, limits: Limits, found: Replication) -> Limits:
    """More patience with a sidecar that lives and has something to upload, by how much that may be."""
    if (found.files and not found.lag_s) or t.volume is None:
        return limits
    try:
        await asyncio.wait_for(streaming.socket.info(), ctx.bounds.poll_s)
    except (SocketError, TimeoutError):
        return limits
    return limits.uploading(await ctx.on_engine(volume.upload_bytes, t.volume, t.claim.databases))


def _call_s(ctx: Context, streaming: Sidecar) -> float | None:
    began = [r.flying_since for r in streaming.syncs.values() if r.flying_since is not None]
    return ctx.monotonic() - min(began) if began else None


async def _act(
    ctx: Context, t: HeldTenant, limits: Limits, verdict: Verdict, found: Replication
) -> CustodyEvent | None:
    match verdict:
        case Verdict.BEHIND:
            message = f"{t.tenant}: replication is {found.lag_s or 0:.0f} s behind"
            return CustodyEvent(t.tenant, "behind", message)
        case Verdict.CAUGHT_UP:
            return CustodyEvent(t.tenant, "caught_up", f"{t.tenant}: replication has caught up")
        case Verdict.UNGUARDED:
            why = "nothing keeps its log from being reset before it is copied: what it writes may not reach the bucket"
            return CustodyEvent(t.tenant, "unguarded", f"{t.tenant}: {why}; see the sidecar's log")
        case Verdict.GUARDED:
            return CustodyEvent(t.tenant, "guarded", f"{t.tenant}: its log is kept again until it is copied")
        case Verdict.FOREIGN_WRITER:
            message = (
                f"{t.tenant}: somebody else writes into the prefix of epoch {t.claim.epoch}: this node takes a new one"
            )
            await ctx.on_engine(_note_foreign, t)
            return CustodyEvent(t.tenant, "foreign_writer", message)
        case Verdict.RESTART:
            if not await _store_answers(ctx, t):
                return None  # it is the bucket: a restart would not help, and a fresh start blocks for longer
            return await restart(ctx, t, limits, "it was stuck")


async def restart(ctx: Context, t: HeldTenant, limits: Limits, why: str) -> CustodyEvent | None:
    """Restart a sidecar; None if it was stopped meanwhile, or the engine cannot now: the next look tries again."""
    try:
        done = await sidecar.restart(ctx, t, limits)
    except Refused:
        return None
    message = f"{t.tenant}: its sidecar was restarted: {why}"
    return CustodyEvent(t.tenant, "sidecar_restarted", message) if done else None


async def _store_answers(ctx: Context, t: HeldTenant) -> bool:
    try:
        await asyncio.wait_for(ctx.on_store(ctx.store.get, keys.owner(t.tenant)), ctx.bounds.poll_s)
    except (BucketError, TimeoutError):
        return False
    return True


async def ousted(ctx: Context, tenants: Callable[[], Iterable[HeldTenant]]) -> list[CustodyEvent]:
    """Held tenants whose record is not ours any more: one LIST for all, one GET for each that changed."""
    entries = await ctx.on_store(lambda: {e.key: e.etag for e in ctx.store.list(keys.OWNERS)})
    events = []
    for t in list(tenants()):
        if entries.get(keys.owner(t.tenant)) == t.owner.etag:
            continue
        try:
            found = await ctx.on_store(cas.read, ctx.store, keys.owner(t.tenant), Owner)
        except BadRecord:
            continue  # nothing is known of this one; the others' records are looked at all the same
        if found is not None and names(ctx.me, found.record, t.claim.epoch):
            continue  # a write of our own since the LIST
        if t in tenants():
            who = f"node {found.record.node} holds epoch {found.record.epoch}" if found else "its record is gone"
            events.append(CustodyEvent(t.tenant, "ousted", f"{t.tenant}: {who}; stopped here"))
    return events
