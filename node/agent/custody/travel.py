"""Going back in time: which transaction of which epoch each file had at a moment, by the lineage's cuts. Blocking.

The moment is compared with the `litestream-timestamp` of the objects, the writer's clock at its newest transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from node.agent.custody import ltx
from node.agent.custody.errors import Refused
from node.agent.custody.look import lineages, objects
from node.agent.custody.ltx import Ltx
from node.agent.custody.source import Source
from node.bucket import cas, keys
from node.bucket.records import Lineage, Owner
from node.bucket.store import Store

_METADATA = "litestream-timestamp"


def timestamp(metadata: str) -> float | None:
    """Unix seconds of an object's `litestream-timestamp`, None if it is no time."""
    try:
        return datetime.fromisoformat(metadata).timestamp()
    except ValueError:
        return None


def written_at(store: Store, o: Ltx) -> float:
    """When an object's newest transaction was written; the store's own time if the object does not say."""
    _, metadata = store.head(o.key)
    said = timestamp(metadata.get(_METADATA, ""))
    return o.modified if said is None else said


def caps(history: Sequence[Lineage]) -> dict[tuple[int, str], int]:
    """(epoch, file) → the last transaction of that epoch that a later one took over. Pure.

    What a zombie uploaded past it belongs to nobody. An epoch that nobody descends from has none.
    """
    found: dict[tuple[int, str], int] = {}
    for record in history:
        if record.parent_tenant != record.tenant or record.restore_id is not None:
            continue  # a restore goes back on purpose: what came after its cut was real
        for db, txid in record.cut.items():
            epoch = record.epochs.get(db, record.parent_epoch)
            found[epoch, db] = max(found.get((epoch, db), 0), int(txid, 16))
    return found


def ends(known: Iterable[Ltx], cap: int | None) -> Iterator[Ltx]:
    """For each transaction that can be restored, up to `cap`, the lowest object that ends there, oldest first. Pure."""
    objs, reached = tuple(known), 0
    for o in sorted(objs, key=lambda o: (o.last, o)):
        if o.last > reached and (cap is None or o.last <= cap) and ltx.plan(objs, o.last):
            reached = o.last
            yield o


def choose(known: Iterable[Ltx], cap: int | None, at: float, when: Callable[[Ltx], float]) -> tuple[int, float] | None:
    """The newest restorable (txid, its time) not later than `at`; None if the file is younger. Pure but for `when`.

    Times grow with txids, so few objects are asked for theirs.
    """
    found = list(ends(known, cap))
    low, high, best = 0, len(found), None
    while low < high:
        middle = (low + high) // 2
        written = when(found[middle])
        if written <= at:
            best, low = (found[middle].last, written), middle + 1
        else:
            high = middle
    return best


def sources(
    store: Store, tenant: str, databases: Iterable[str], at: float, claimed: int | None = None
) -> dict[str, Source]:
    """Each file's source at a moment, of any tenant. `claimed` is the epoch that is being made and has nothing yet.

    Raises Refused if the tenant held nothing then, and the store's errors.
    """
    held = cas.read(store, keys.owner(tenant), Owner)
    history = [r for r in lineages(store, tenant) if r.epoch != claimed]
    newest = held.record.data_epoch if held else 0
    epochs = [r for r in history if r.epoch <= newest]
    limits, found = caps(history), dict[str, Source]()
    listed: dict[int, dict[str, tuple[Ltx, ...]]] = {}
    for db in databases:
        for record in reversed(epochs):
            if record.at > at:
                continue
            if record.epoch not in listed:
                listed[record.epoch] = dict(objects(store, tenant, record.epoch))
            known = listed[record.epoch].get(db, ())
            cap = limits.get((record.epoch, db))
            if picked := choose(known, cap, at, lambda o: written_at(store, o)):
                found[db] = Source(tenant, record.epoch, picked[0], picked[1])
                break
    if not found:
        message = f"{tenant}: nothing of it can be restored as of that moment; `points` lists the moments that can"
        raise Refused(tenant, message, reason="no_point", retryable=False)
    return found
