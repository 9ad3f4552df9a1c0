"""Deleting a purged tenant's data: nothing of whoever is born under its name again."""

from __future__ import annotations

import pytest

from node.agent.custody.errors import Refused
from node.agent.custody.purge import purge
from node.bucket import cas, keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Owner


def tombstone(store: MemoryStore, state: str = "purged") -> None:
    owner = Owner.model_validate(
        {"nonce": "n", "tenant": "acme", "epoch": 2, "node": "n1", "session": 1, "state": state, "data_epoch": 2,
         "observed_generation": 3}
    )  # fmt: skip
    cas.write(store, keys.owner("acme"), owner, None, give_up=lambda _: None)


def filled() -> MemoryStore:
    store = MemoryStore()
    for epoch in (1, 2, 3, 16):
        store.create(f"{keys.epoch_data('acme', epoch)}app.db/0000/x.ltx", b"x")
        store.create(keys.lineage("acme", epoch), b"{}")
    store.create(f"{keys.epoch_data('acme-2', 1)}app.db/0000/x.ltx", b"x")
    return store


def test_what_a_tenant_that_is_born_again_meanwhile_writes_is_not_deleted() -> None:
    store = filled()
    tombstone(store)
    assert purge(store, "acme", 2) == (4, True)
    left = {entry.key for entry in store.list("data/")} | {entry.key for entry in store.list("lineage/")}
    assert left == {
        "data/acme/e00000003/app.db/0000/x.ltx",
        "data/acme/e00000010/app.db/0000/x.ltx",
        "data/acme-2/e00000001/app.db/0000/x.ltx",
        "lineage/acme/00000003.json",
        "lineage/acme/00000010.json",
    }


def test_nothing_is_deleted_of_a_tenant_whose_record_does_not_say_purged() -> None:
    store = filled()
    tombstone(store, "claimed")
    with pytest.raises(Refused):
        purge(store, "acme", 2)
    assert len(list(store.list("data/acme/"))) == 4
