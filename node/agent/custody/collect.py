"""Collecting a tenant's dead epochs: survey them, judge them, delete what may go. Blocking.

Only the owner deletes, and the owner record is read again before each batch: who is not named there any more deletes
nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node.agent.custody import cut, garbage, travel
from node.agent.custody.claim import CLEAN, Me
from node.agent.custody.garbage import Fate, Holding
from node.agent.custody.look import epochs_with_files, lineages, objects
from node.agent.custody.ltx import Ltx
from node.agent.custody.purge import delete_under, still
from node.bucket import keys
from node.bucket.errors import Missing
from node.bucket.records import Owner
from node.bucket.store import Store

_BATCHES = 20
# Of a tenant that moved very often: the next survey sees the rest, as the oldest go first.
_MOST_EPOCHS = 200


@dataclass(frozen=True, slots=True)
class Survey:
    """What a tenant's epochs hold and what becomes of them. `orphans` are, by epoch and file, transactions that were
    uploaded past the cut at which another epoch took over: nobody merges them."""

    epoch: int
    fates: tuple[Fate, ...] = ()
    holdings: Mapping[int, Holding] = field(default_factory=dict)
    orphans: Mapping[int, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collected:
    """What went; `done` when nothing is left that may go."""

    objects: int = 0
    size_bytes: int = 0
    done: bool = True


def survey(store: Store, tenant: str, me: Me, retention_s: float, now: float) -> Survey:
    """Look at every epoch. A request or two if there is but one; else a LIST an epoch and a HEAD a file of each.

    `now` is unix time. Raises Refused unless the record says that this node and session hold the tenant, and the
    store's errors.
    """
    owner = still(store, tenant, lambda owner: _held(owner, me, owner.data_epoch))
    epochs = sorted(epochs_with_files(store, tenant))
    if not [e for e in epochs if e != owner.epoch]:
        return Survey(owner.epoch)
    known = sorted({*epochs[:_MOST_EPOCHS], *(e for e in epochs if e == owner.epoch)})
    history = lineages(store, tenant)
    limits = travel.caps(history)
    holdings, orphans = {}, {}
    for epoch in known:
        found = objects(store, tenant, epoch)
        caps = {db: limits[epoch, db] for db in found if (epoch, db) in limits}
        holdings[epoch] = _holding(store, epoch, found, caps)
        if past := cut.orphaned(found, {db: f"{txid:016x}" for db, txid in caps.items()}):
            orphans[epoch] = past
    horizon = garbage.horizon(now, retention_s)
    fates = garbage.judge(holdings.values(), history, data_epoch=owner.epoch, horizon=horizon)
    return Survey(owner.epoch, tuple(fates), holdings, orphans)


def collect(store: Store, tenant: str, me: Me, found: Survey) -> Collected:
    """Delete the epochs that a survey condemned, a bounded number of batches a call.

    Raises Refused as soon as the record names somebody else, and the store's errors: what went is gone, the rest stays.
    """
    deleted = 0
    for fate in found.fates:
        if not fate.goes:
            continue
        gone, done = delete_under(
            store,
            keys.epoch_data(tenant, fate.epoch),
            _BATCHES,
            lambda: still(store, tenant, lambda owner: _held(owner, me, found.epoch)),
        )
        deleted += gone
        if not done:
            return Collected(deleted, 0, done=False)
    size = sum(found.holdings[f.epoch].size_bytes for f in found.fates if f.goes)
    return Collected(deleted, size)


def _held(owner: Owner, me: Me, epoch: int) -> bool:
    """Whether this node owns the tenant, settled at `epoch`: in this session, or as the last who had it."""
    if owner.node != me.node or not owner.epoch == owner.data_epoch == epoch:
        return False
    return (owner.state == "running" and owner.session == me.session) or (
        owner.state in CLEAN and owner.session <= me.session
    )


def _holding(store: Store, epoch: int, found: Mapping[str, Sequence[Ltx]], caps: Mapping[str, int]) -> Holding:
    every = [o for known in found.values() for o in known]
    return Holding(
        epoch=epoch,
        since={db: _since(store, known, caps.get(db)) for db, known in found.items()},
        newest=max((o.modified for o in every), default=0.0),
        objects=len(every),
        size_bytes=sum(o.size_bytes for o in every),
    )


def _since(store: Store, known: Sequence[Ltx], cap: int | None) -> float | None:
    """When the oldest state of a file that can be restored was written, None if there is none."""
    for o in travel.ends(known, cap):
        try:
            return travel.written_at(store, o)
        except Missing:
            continue  # compacted away, or past Litestream's own retention, since the listing
    return None
