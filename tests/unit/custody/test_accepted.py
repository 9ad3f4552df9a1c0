"""After a loss was accepted: what the tenant writes from then on is its own, though its new life never settled."""

from __future__ import annotations

import asyncio

import pytest

from node.agent.custody import take
from node.agent.custody.errors import Damaged, Lost
from node.agent.custody.held import HeldTenant
from node.api import Assignment
from node.bucket import keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Lineage, Restore
from node.bucket.spec import TenantSpec
from tests.unit.custody.test_rules import context, owner

FILES = ("a.db", "b.db")
ACCEPT = Restore(id="r1", accept_data_loss=True)
FORK = Restore(id="r1", source="other", accept_data_loss=True)
PROVEN = {"a.db": f"{9:016x}"}


def upload(store: MemoryStore, epoch: int, db: str = "a.db") -> None:
    store.create(f"{keys.database('acme', epoch, db)}/0000/{1:016x}-{1:016x}.ltx", b"x")


def claim(store: MemoryStore, restore: Restore | None) -> HeldTenant:
    want = Assignment(tenant="acme", generation=1, want="up", spec=TenantSpec(image="x", databases=FILES, rpo=1.0))
    return asyncio.run(take.take(context(store), want.model_copy(update={"restore": restore})))


def lost() -> MemoryStore:
    """Nothing is left of epoch 3, which was the tenant's data."""
    store = MemoryStore()
    store.create(keys.owner("acme"), owner(state="lost", positions=PROVEN).encode())
    return store


def source_lost() -> MemoryStore:
    """Nothing is left of the tenant that is to be copied; the copy has never been."""
    store = MemoryStore()
    store.create(keys.owner("other"), owner(tenant="other", positions=PROVEN).encode())
    return store


def test_a_loss_that_is_accepted_begins_empty() -> None:
    assert claim(lost(), ACCEPT).claim.kind == "born"


@pytest.mark.parametrize("again", [ACCEPT, None], ids=["the same wish", "a later wish"])
def test_what_it_wrote_since_is_taken_up_after_a_crash(again: Restore | None) -> None:
    store = lost()
    upload(store, claim(store, ACCEPT).claim.epoch)
    taken = claim(store, again)
    assert (taken.claim.kind, taken.claim.epoch, taken.sources["a.db"].epoch) == ("fresh", 5, 4)


def test_it_is_taken_up_though_the_next_died_half_way_too() -> None:
    store = lost()
    for db in FILES:
        upload(store, claim(store, ACCEPT).claim.epoch if db == "a.db" else 4, db)
    upload(store, claim(store, ACCEPT).claim.epoch)  # one of two
    taken = claim(store, ACCEPT)
    assert {db: s.epoch for db, s in taken.sources.items()} == dict.fromkeys(FILES, 4)


def test_it_is_taken_up_though_the_loss_showed_only_on_reading() -> None:
    store = MemoryStore()
    upload(store, 3)  # it lists, and does not restore
    upload(store, 4)
    store.create(keys.owner("acme"), owner(epoch=4, state="claimed").encode())
    begun = Lineage(
        nonce="n", tenant="acme", epoch=4, parent_epoch=0, parent_tenant="acme", cut={}, node="n1", session=7,
        reason="restore", at=1.0, restore_id="r1",
    )  # fmt: skip
    store.create(keys.lineage("acme", 4), begun.encode())
    assert claim(store, ACCEPT).sources["a.db"].epoch == 4


def test_a_copy_of_what_is_lost_keeps_what_it_wrote() -> None:
    store = source_lost()
    first = claim(store, FORK).claim
    assert first.kind == "born"
    upload(store, first.epoch)
    taken = claim(store, FORK)
    assert (taken.claim.kind, taken.sources["a.db"].tenant, taken.sources["a.db"].epoch) == ("fresh", "acme", 1)


def test_another_copy_that_is_asked_for_is_made_of_what_was_asked_for() -> None:
    store = source_lost()
    upload(store, claim(store, FORK).claim.epoch)
    assert claim(store, FORK.model_copy(update={"id": "r2"})).claim.kind == "born"


def test_what_a_later_epoch_got_of_it_is_offered_and_not_taken_unasked() -> None:
    store = MemoryStore()
    store.create(keys.owner("acme"), owner(epoch=4, state="claimed", positions=PROVEN).encode())
    half = Lineage(
        nonce="n", tenant="acme", epoch=4, parent_epoch=3, parent_tenant="acme", cut=PROVEN, node="n1", session=7,
        reason="failover", at=1.0,
    )  # fmt: skip
    store.create(keys.lineage("acme", 4), half.encode())
    upload(store, 4)
    with pytest.raises(Damaged) as damaged:
        claim(store, None)
    assert damaged.value.instead.epoch == 4
    assert claim(store, ACCEPT).sources["a.db"].epoch == 4


def test_nothing_at_all_is_lost_until_that_is_accepted() -> None:
    store = MemoryStore()
    store.create(keys.owner("acme"), owner(epoch=4, state="claimed", positions=PROVEN).encode())
    with pytest.raises(Lost):
        claim(store, None)
