"""The moments that a tenant can be restored to. Blocking."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

from node.agent.custody import ltx, travel
from node.agent.custody.look import lineages, objects
from node.agent.custody.ltx import Ltx
from node.api import Point, Points
from node.bucket import cas, keys
from node.bucket.errors import Missing
from node.bucket.records import Owner
from node.bucket.store import Store

_MOST = 500
_HEADS = 16


@dataclass(frozen=True, slots=True)
class _Moment:
    epoch: int
    db: str
    object: Ltx


def points(store: Store, tenant: str) -> Points:
    """The newest few hundred moments, oldest first: a LIST an epoch, a HEAD a moment. Raises the store's errors."""
    held = cas.read(store, keys.owner(tenant), Owner)
    history = [r for r in lineages(store, tenant) if held is not None and r.epoch <= held.record.data_epoch]
    limits = travel.caps(history)
    moments: list[_Moment] = []
    for record in reversed(history):
        for db, known in objects(store, tenant, record.epoch).items():
            cap = limits.get((record.epoch, db))
            moments += [_Moment(record.epoch, db, o) for o in _ends(known, cap)]
        if len(moments) >= _MOST:
            break
    with ThreadPoolExecutor(_HEADS) as pool:
        times = list(pool.map(lambda m: _written(store, m.object), moments))
    found = sorted(
        (
            Point(at=at, epoch=m.epoch, kind="snapshot" if m.object.level == ltx.SNAPSHOT_LEVEL else "change",
                  files={m.db: ltx.hex16(m.object.last)})
            for m, at in zip(moments, times, strict=True)
            if at is not None
        ),
        key=lambda p: p.at,
    )  # fmt: skip
    return Points(tenant=tenant, points=tuple(_joined(found)))


def _ends(known: Sequence[Ltx], cap: int | None) -> list[Ltx]:
    """One object per restorable transaction, newest first: a snapshot where there is one."""
    ends: dict[int, Ltx] = {}
    for o in chain(sorted(known, reverse=True)):
        if (cap is None or o.last <= cap) and ltx.plan(known, o.last):
            ends.setdefault(o.last, o)
    return [ends[txid] for txid in sorted(ends, reverse=True)][:_MOST]


def _written(store: Store, o: Ltx) -> float | None:
    try:
        return travel.written_at(store, o)
    except Missing:
        return None  # compacted away meanwhile


def _joined(found: Sequence[Point]) -> list[Point]:
    """Each point with every file's transaction at that moment in its epoch."""
    joined: list[Point] = []
    now: dict[int, dict[str, str]] = {}
    for point in found:
        files = now.setdefault(point.epoch, {})
        files.update(point.files)
        joined.append(point.model_copy(update={"files": dict(files)}))
    return joined
