"""Deleting: a purged tenant's data, and epochs that a later one has replaced for longer than the retention. Blocking.

The owner record is read again before each batch: who is not named there (any more) deletes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from node.agent.custody.errors import Refused
from node.agent.custody.look import epochs_with_files, lineages
from node.bucket import cas, keys
from node.bucket.records import Owner
from node.bucket.store import Store

_BATCH = 1000
_BATCHES = 20


def purge(store: Store, tenant: str, epoch: int) -> tuple[int, bool]:
    """Delete a tombstoned tenant's data and lineage, a bounded number of batches a call: (deleted, done).

    Raises Refused unless the record says purged at this epoch, and the store's errors.
    """
    deleted = 0
    for prefix in (keys.tenant_data(tenant), keys.lineages(tenant)):
        for _ in range(_BATCHES):
            _still(store, tenant, lambda owner: owner.state == "purged" and owner.epoch == epoch)
            batch = [entry.key for entry in islice(store.list(prefix, limit=_BATCH), _BATCH)]
            batch = [key for key in batch if key < f"{prefix}{_past(prefix, epoch)}"]
            if not batch:
                break
            store.delete(batch)
            deleted += len(batch)
        else:
            return deleted, False
    return deleted, True


def _past(prefix: str, epoch: int) -> str:
    """What sorts behind all of an epoch and those before it: a tenant that is born again meanwhile keeps its own."""
    return f"e{epoch + 1:08x}" if prefix.startswith("data/") else f"{epoch + 1:08x}"


def collect(store: Store, tenant: str, epoch: int, retention_s: float, now: float) -> int:
    """Delete the epochs below a tenant's data epoch once retention has passed since they were replaced.

    `epoch` is what this node holds. Raises Refused if the record does not say so, and the store's errors.
    """

    def held(owner: Owner) -> bool:
        return owner.epoch == owner.data_epoch == epoch and owner.state == "running"

    _still(store, tenant, held)
    history = lineages(store, tenant)
    deleted = 0
    for old in epochs_with_files(store, tenant):
        # Replaced when the first later epoch that took over was claimed, by whose clock it says.
        after = [r.at for r in history if r.epoch > old]
        if old >= epoch or not after or min(after) + retention_s > now:
            continue
        for _ in range(_BATCHES):
            _still(store, tenant, held)
            batch = [entry.key for entry in islice(store.list(keys.epoch_data(tenant, old), limit=_BATCH), _BATCH)]
            if not batch:
                break
            store.delete(batch)
            deleted += len(batch)
    return deleted


def _still(store: Store, tenant: str, allows: Callable[[Owner], bool]) -> None:
    found = cas.read(store, keys.owner(tenant), Owner)
    if found is None or not allows(found.record):
        says = f"{found.record.state} at epoch {found.record.epoch}" if found else "nothing"
        raise Refused(
            tenant, f"{tenant}: its owner record says {says}: nothing is deleted", reason="not_ours", retryable=False
        )
