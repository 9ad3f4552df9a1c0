"""Deleting a tombstoned tenant's data. Blocking.

The owner record is read again before each batch: who is not named there (any more) deletes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from node.agent.custody.errors import Refused
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
        gone, done = delete_under(
            store,
            prefix,
            _BATCHES,
            lambda: still(store, tenant, lambda owner: owner.state == "purged" and owner.epoch == epoch),
            below=f"{prefix}{_past(prefix, epoch)}",
        )
        deleted += gone
        if not done:
            return deleted, False
    return deleted, True


def delete_under(
    store: Store, prefix: str, batches: int, allowed: Callable[[], object], *, below: str | None = None
) -> tuple[int, bool]:
    """Delete what is under a prefix, and sorts below a key, at most so many batches: (deleted, whether that was all).

    `allowed` is asked before each batch and raises if it is not (any more). Raises the store's errors.
    """
    deleted = 0
    for _ in range(batches):
        allowed()
        batch = [entry.key for entry in islice(store.list(prefix, limit=_BATCH), _BATCH)]
        batch = [key for key in batch if below is None or key < below]
        if not batch:
            return deleted, True
        store.delete(batch)
        deleted += len(batch)
    return deleted, False


def _past(prefix: str, epoch: int) -> str:
    """What sorts behind all of an epoch and those before it: a tenant that is born again meanwhile keeps its own."""
    return f"e{epoch + 1:08x}" if prefix.startswith("data/") else f"{epoch + 1:08x}"


def still(store: Store, tenant: str, allows: Callable[[Owner], bool]) -> Owner:
    """The owner record, read again. Raises Refused unless `allows` says so of it, and the store's errors."""
    found = cas.read(store, keys.owner(tenant), Owner)
    if found is None or not allows(found.record):
        says = f"{found.record.state} at epoch {found.record.epoch}" if found else "nothing"
        raise Refused(
            tenant, f"{tenant}: its owner record says {says}: nothing is deleted", reason="not_ours", retryable=False
        )
    return found.record
