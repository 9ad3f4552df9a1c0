"""Bringing a volume into the state that a claim asks for: kept, or fresh with every file restored to its cut."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import apsw

from node.agent.custody import config, cut, ltx, marker, source, take, volume
from node.agent.custody.claim import Me
from node.agent.custody.context import Context
from node.agent.custody.errors import Refused
from node.agent.custody.files import write_config
from node.agent.custody.held import HeldTenant, own_record
from node.agent.custody.look import objects
from node.agent.custody.marker import Marker
from node.agent.custody.sidecar import engine
from node.agent.custody.source import Source
from node.agent.custody.values import Kind, Prepared, Progress
from node.agent.ports import JobResult, JobSpec, RuntimeFailed, Volume
from node.api import Phase
from node.bucket import cas, keys

_AT_ONCE = 4
_ORIGINS: Mapping[Kind, Literal["born", "carried"]] = {"born": "born", "carried": "carried"}
_TROUBLE = re.compile(
    r"connection|timeout|timed out|refused|no such host|unreachable|\b50[0-9]\b|SlowDown|InternalError|Unavailable"
    r"|AccessDenied|InvalidAccessKey|SignatureDoesNotMatch|NoSuchBucket|deadline|RequestError|EOF from server",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left|quota exceeded", re.IGNORECASE)


class _Unreadable(Exception):
    """One file's chain cannot be restored to its cut, though the store answers."""

    def __init__(self, db: str, why: str) -> None:
        super().__init__(why)
        self.db = db


async def prepare(ctx: Context, t: HeldTenant, uid: int, disk_bytes: int, progress: Progress) -> Prepared:
    """The volume of a claim, made once: a repeat finds it as it is, with all that a worker wrote meanwhile.

    Raises Lost, Damaged, Refused, Unconfirmed, OwnedElsewhere."""
    if t.ready and t.volume is not None:
        return Prepared(t.claim, t.volume)
    started = ctx.monotonic()
    me, name = ctx.me, t.tenant
    aside: Path | None = None
    if t.claim.kind not in ("kept", "carried"):
        aside = await ctx.on_engine(_clear, ctx, t)
    vol = await engine(ctx, t.tenant, lambda: ctx.volumes.ensure(name, uid, disk_bytes))
    await ctx.on_engine(_mark, t, me, vol)
    if t.claim.kind == "carried":
        await ctx.on_engine(_new_stream, vol)
    t.volume = vol
    phases = [Phase(name="volume", duration_s=ctx.monotonic() - started)]
    size = 0
    if t.claim.kind == "fresh":
        progress("restore", 0.0)
        began = ctx.monotonic()
        size = await _restore_all(ctx, t, vol, uid, progress)
        phases.append(Phase(name="restore", duration_s=ctx.monotonic() - began, size_bytes=size))
    t.ready = True
    warnings = (f"an earlier volume was set aside at {aside}",) if aside else ()
    if t.claim.kind == "carried":
        warnings = ("this node went down and came back: its own volume goes on, as it is not behind the bucket",)
    return Prepared(t.claim, vol, tuple(phases), size, aside, warnings)


def _clear(ctx: Context, t: HeldTenant) -> Path | None:
    """A fresh volume is new: an old one is deleted if all of it is in the bucket, else set aside."""
    try:
        old = ctx.volumes.find(t.tenant)
    except RuntimeFailed as e:
        if e.reason != "volume_damaged":
            raise
        return ctx.volumes.set_aside(t.tenant, "damaged")
    if old is None:
        return None
    found = marker.read(old.marker)
    if take.disposable(found, empty=volume.is_empty(old)):
        ctx.volumes.discard(t.tenant)
        return None
    return ctx.volumes.set_aside(t.tenant, f"e{found.attempt:08x}" if found else "unknown")


def _mark(t: HeldTenant, me: Me, vol: Volume) -> None:
    """Say in the marker, before anything runs, that from now on the volume may hold what is nowhere else."""
    found = marker.read(vol.marker) if t.claim.kind == "kept" else None
    if found is None:
        found = Marker(t.tenant, me.node, 0, t.claim.epoch, me.boot_id, _ORIGINS.get(t.claim.kind, "restored"))
    marker.write(vol.marker, found.running(me.boot_id))


def _new_stream(vol: Volume) -> None:
    """What Litestream remembers of the old epoch's prefix is not true of the new one's: it begins anew."""
    with suppress(FileNotFoundError):
        shutil.rmtree(vol.meta / "db")


async def reopen(ctx: Context, vol: Volume) -> None:
    """A volume that was about to be at rest runs again: its marker says so before anything does."""
    found = await ctx.on_engine(marker.read, vol.marker)
    if found is not None and found.released:
        await ctx.on_engine(marker.write, vol.marker, found.running(ctx.me.boot_id))


async def _restore_all(ctx: Context, t: HeldTenant, vol: Volume, uid: int, progress: Progress) -> int:
    gate, done = asyncio.Semaphore(_AT_ONCE), 0

    async def one(db: str, of: Source) -> None:
        nonlocal done
        async with gate:
            await _restore(ctx, t, vol, uid, db, of)
        done += 1
        progress("restore", done / len(t.sources))

    try:
        results = await asyncio.gather(*(one(db, s) for db, s in t.sources.items()), return_exceptions=True)
        unreadable = [r for r in results if isinstance(r, _Unreadable)]
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, _Unreadable):
                raise result
        if unreadable:
            await _instead(ctx, t, vol, uid, unreadable)
        return sum(volume.size_bytes(vol, db) or 0 for db in t.sources)
    finally:
        shutil.rmtree(_folder(ctx, t), ignore_errors=True)


async def _restore(ctx: Context, t: HeldTenant, vol: Volume, uid: int, db: str, of: Source) -> None:
    """One file to its cut, and a small commit in it. Raises _Unreadable, Refused, Unconfirmed."""
    for attempt in (1, 2):
        result = await _job(ctx, t, vol, uid, db, of)
        if result.exit_code == 0:
            with suppress(apsw.Error):  # it only saves work; what was restored has been checked
                await ctx.on_engine(nudge, vol.data / db)
            return
        if _FULL.search(result.output):
            message = f"{t.tenant}: {db} does not fit into its disk allowance; raise limits.disk: {_last(result)}"
            raise Refused(t.tenant, message, reason="disk_full", retryable=False)
        if result.exit_code is None or _TROUBLE.search(result.output):
            message = f"{t.tenant}: restoring {db} failed and may work later: {_last(result)}"
            raise Refused(t.tenant, message, reason="restore_failed", retryable=True)
        known = (await ctx.on_store(objects, ctx.store, of.tenant, of.epoch)).get(db, ())
        if ltx.newest(known) < of.txid or attempt == 2:
            break
    raise _Unreadable(db, f"{db} at transaction {of.txid} of epoch {of.epoch}: {_last(result)}")


async def _job(ctx: Context, t: HeldTenant, vol: Volume, uid: int, db: str, of: Source) -> JobResult:
    folder = _folder(ctx, t) / config.meta_name(db) / ltx.hex16(of.txid)
    credentials = await ctx.on_store(ctx.replica.credentials, keys.epoch_data(of.tenant, of.epoch))
    await ctx.on_engine(write_config, folder, uid, config.restore(ctx.replica, {db: of.prefix(db)}, credentials))
    spec = JobSpec(
        tenant=t.tenant, epoch=t.claim.epoch, session=t.claim.session, uid=uid, volume=vol, config=folder,
        args=config.restore_args(db, ltx.hex16(of.txid)),
    )  # fmt: skip
    return await engine(ctx, t.tenant, lambda: ctx.runtime.run_job(spec, ctx.bounds.restore_s))


async def _instead(ctx: Context, t: HeldTenant, vol: Volume, uid: int, troubles: list[_Unreadable]) -> None:
    """Find what can be restored instead, by trying; take it if that loss is accepted, else record it and raise."""
    await own_record(ctx, t)
    broken = {trouble.db for trouble in troubles}
    instead = {db: s for db, s in t.sources.items() if db not in broken}
    for db in sorted(broken):
        if found := await _earlier(ctx, t, vol, uid, db, t.sources[db]):
            instead[db] = found
    if not t.accept_loss:
        raise await take.mark_down(ctx, t, "; ".join(map(str, troubles)), instead)
    for db in sorted(broken & set(instead)):
        await _restore(ctx, t, vol, uid, db, instead[db])
    t.sources = instead
    if not instead:
        t.claim = replace(t.claim, kind="born")
        await ctx.on_engine(_mark, t, ctx.me, vol)
    if t.lineage is not None:  # it says what was taken over, and that is less now
        record = source.lineage(t.lineage.record, instead).model_copy(update={"nonce": cas.new_nonce()})
        key = keys.lineage(t.tenant, t.claim.epoch)
        t.lineage = await ctx.on_store(cas.write, ctx.store, key, record, t.lineage.etag, give_up=cas.backoff())


async def _earlier(ctx: Context, t: HeldTenant, vol: Volume, uid: int, db: str, of: Source) -> Source | None:
    """The newest state of a file that restores, by bisecting the chain; then chains that avoid what is broken."""
    known = (await ctx.on_store(objects, ctx.store, of.tenant, of.epoch)).get(db, ())
    bad: frozenset[str] = frozenset()
    txid = min(of.txid, ltx.newest(known))
    for _ in range(16):
        chain = ltx.plan(known, txid) if txid else ()
        if not chain:
            return None
        low, high = 0, len(chain)  # the first `low` objects are readable, and not more than `high`
        while low < high:
            middle = (low + high + 1) // 2
            attempt = replace(of, txid=chain[middle - 1].last)
            result = await _job(ctx, t, vol, uid, db, attempt)
            await ctx.on_engine(_unlink, vol.data / db)
            low, high = (middle, high) if result.exit_code == 0 else (low, middle - 1)
        if low:
            return replace(of, txid=chain[low - 1].last)
        bad |= {chain[0].key}
        txid = cut.unreadable(known, txid, bad)
    return None


def nudge(path: Path) -> None:
    """A small commit into a restored file: until there is one, Litestream reads the whole of it every second.

    Nothing of the tenant has run on this volume, so the path is ours. The commit stays in the WAL.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
    db = apsw.Connection(str(path.resolve(strict=True)), flags=flags)
    try:
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.pragma("journal_mode", "wal")
        db.pragma("wal_autocheckpoint", 0)
        db.pragma("user_version", db.pragma("user_version"))
    finally:
        db.close()
    owner = path.stat()
    for name in ("-wal", "-shm"):
        side = path.with_name(path.name + name)
        if side.exists():
            os.chown(side, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".tmp"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _folder(ctx: Context, t: HeldTenant) -> Path:
    return ctx.runtime_dir / "restores" / f"{t.tenant}-{t.claim.epoch:08x}"


def _last(result: JobResult) -> str:
    lines = [line for line in result.output.splitlines() if line.strip()]
    return lines[-1] if lines else "it was stopped at its time limit" if result.exit_code is None else "no output"
