"""Reading the bucket for a claim: positions against it, what an epoch holds, which epochs hold anything. Blocking."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from node.agent.custody import cut, ltx, position, volume
from node.agent.custody.cut import Objects
from node.agent.custody.position import Position
from node.agent.ports import Volume
from node.bucket import cas, keys
from node.bucket.errors import Missing
from node.bucket.records import Lineage, Owner
from node.bucket.store import Store

_LOOKS = 3


def positions(
    store: Store, tenant: str, epoch: int, databases: Iterable[str], vol: Volume, local: Mapping[str, int]
) -> dict[str, Position]:
    """How the volume stands to the epoch's prefix: one LIST a file. Raises the store's errors: unknown is not equal."""
    prefix = keys.epoch_data(tenant, epoch)
    return {db: _position(store, prefix, db, vol, local.get(db, 0)) for db in databases}


def alone(store: Store, tenant: str, epoch: int, databases: Iterable[str], vol: Volume) -> bool:
    """Whether the newest objects of an epoch are copies of this volume's, while its sidecar goes on: one LIST a file.

    What Litestream uploads it has copied here before: an object that is newer than all that is here after the LIST is
    somebody else's, and so is one of the same name with other bytes. Raises the store's errors.
    """
    return not any(_mixed(store, tenant, epoch, db, vol) for db in databases)


def _mixed(store: Store, tenant: str, epoch: int, db: str, vol: Volume) -> bool:
    for _ in range(_LOOKS):
        local = volume.local_positions(vol, (db,))
        if not local:
            return False  # nothing of it was copied yet
        try:
            found = positions(store, tenant, epoch, (db,), vol, local)[db]
        except FileNotFoundError:
            continue  # it went on, and what was compared is compacted away
        if found is not Position.BEHIND:
            return found is Position.DIVERGED
        if volume.local_positions(vol, (db,)) == local:
            return True
    return False  # it goes on too fast to tell: the next time does


def _position(store: Store, prefix: str, db: str, vol: Volume, local: int) -> Position:
    entries = list(store.list(f"{prefix}{db}/0000/", start_after=position.start_after(prefix, db, local)))
    path = volume.raw_file(vol, db, local)
    found = position.compare(entries, prefix, db, local, volume.etags(path) if local else frozenset())
    if found is not Position.UNCLEAR:
        return found
    key = f"{prefix}{db}/0000/{path.name}"
    with tempfile.TemporaryDirectory(prefix="ltx-", dir=vol.meta) as folder:
        theirs = Path(folder) / "theirs"
        try:
            store.get_file(key, theirs)
        except Missing:
            return Position.DIVERGED
        return Position.EQUAL if filecmp.cmp(path, theirs, shallow=False) else Position.DIVERGED


def objects(store: Store, tenant: str, epoch: int) -> Objects:
    """Everything under an epoch's prefix: one listing. Raises the store's errors."""
    prefix = keys.epoch_data(tenant, epoch)
    return ltx.by_database(store.list(prefix), prefix)


def epochs_with_files(store: Store, tenant: str) -> list[int]:
    """The epochs whose prefix holds any object, newest first: a request per epoch. Raises the store's errors."""
    root, found, after = keys.tenant_data(tenant), [], ""
    while entry := next(iter(store.list(root, start_after=after, limit=1)), None):
        name = entry.key.removeprefix(root).split("/", 1)[0]
        with suppress(ValueError):  # not an epoch: somebody else's object
            found.append(int(name.removeprefix("e"), 16))
        after = f"{root}{name}0"  # past everything under `name/`
    return sorted(found, reverse=True)


def lineages(store: Store, tenant: str) -> list[Lineage]:
    """A tenant's lineage records by epoch, oldest first. Raises the store's errors."""
    held = [cas.read(store, entry.key, Lineage) for entry in store.list(keys.lineages(tenant))]
    return sorted((h.record for h in held if h), key=lambda r: r.epoch)


def salvage(store: Store, owner: Owner, databases: Iterable[str]) -> tuple[int, dict[str, int]]:
    """For a tenant without a data epoch: the newest epoch below its owner's of which anything can be restored.

    An epoch that died before it was whole may hold the only copy of what its tenant wrote; one that had not got all
    that it was to take over yet has less than the one before it. What was written before the tenant was last born is
    not its own. (0, {}) if there is nothing at all: then it may be born empty. An epoch and no file if it has objects
    of them of which nothing can be restored.
    """
    tenant, below = owner.tenant, owner.epoch
    candidates = [e for e in epochs_with_files(store, tenant) if e < below]
    if not candidates:
        return 0, {}
    history = {r.epoch: r for r in lineages(store, tenant) if r.epoch < below}
    born = [r.epoch for r in history.values() if r.reason in {"born", "reborn"}]
    holding, wanted, half = 0, set(databases), dict[str, int]()
    for epoch in candidates:
        if epoch < max(owner.born, *born, 0):
            break
        found = objects(store, tenant, epoch)
        match cut.cut(found, wanted, {}):
            case cut.Whole(files) | cut.Broken(instead=files):
                if files and wanted & _taken_over(history.get(epoch)) <= files.keys():
                    return epoch, files
        holding = holding or (epoch if wanted & found.keys() else 0)
        if files and not half:
            holding, half = epoch, files  # unless the one before it has everything still
    return holding, half


def _taken_over(record: Lineage | None) -> frozenset[str]:
    return frozenset(record.cut if record else ())


def begun_anew(
    store: Store, owner: Owner, databases: Iterable[str], restore_id: str | None
) -> tuple[int, dict[str, int]]:
    """What a life wrote that began empty after the data epoch, whose loss was accepted, and that never settled.

    With `restore_id`, only one that this restore began. (0, {}) if there is none. Raises the store's errors.
    """
    after = max(owner.data_epoch, owner.born - 1)
    if owner.epoch - 1 <= after:
        return 0, {}
    for epoch in epochs_with_files(store, owner.tenant):
        found = cas.read(store, keys.lineage(owner.tenant, epoch), Lineage) if after < epoch < owner.epoch else None
        record = found.record if found else None
        if record and not record.cut and not record.carried and restore_id in (None, record.restore_id):
            return salvage(store, owner.model_copy(update={"born": epoch}), databases)
    return 0, {}
