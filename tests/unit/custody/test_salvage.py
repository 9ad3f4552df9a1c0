"""A tenant that never settled: what of it is in the bucket is taken up, and nothing restorable is not nothing."""

from __future__ import annotations

from node.agent.custody.look import salvage
from node.bucket import keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Lineage
from tests.unit.custody.test_rules import owner


def bucket(*objects: tuple[int, str, int, int], born: int = 1) -> MemoryStore:
    """Objects as (epoch, file, first, last), all of them raw, and the lineage of the epoch that was born."""
    store = MemoryStore()
    record = Lineage(
        nonce="n", tenant="acme", epoch=born, parent_epoch=0, parent_tenant="acme", cut={}, node="n1", session=1,
        reason="born", at=1.0,
    )  # fmt: skip
    store.create(keys.lineage("acme", born), record.encode())
    for epoch, db, first, last in objects:
        store.create(f"{keys.database('acme', epoch, db)}/0000/{first:016x}-{last:016x}.ltx", b"x")
    return store


def test_nothing_at_all_may_be_born_empty() -> None:
    assert salvage(bucket(), owner(epoch=3, data_epoch=0), ("app.db",)) == (0, {})


def test_the_newest_epoch_that_holds_a_state_is_taken_up() -> None:
    store = bucket((1, "app.db", 1, 1), (1, "app.db", 2, 2), (2, "app.db", 5, 5))
    assert salvage(store, owner(epoch=3, data_epoch=0), ("app.db",)) == (1, {"app.db": 2})


def test_objects_without_a_whole_state_are_not_nothing() -> None:
    assert salvage(bucket((1, "app.db", 2, 2)), owner(epoch=2, data_epoch=0), ("app.db",)) == (1, {})


def test_files_that_are_not_the_tenants_any_more_are_nothing() -> None:
    assert salvage(bucket((1, "old.db", 2, 2)), owner(epoch=2, data_epoch=0), ("app.db",)) == (0, {})


def test_what_is_from_before_the_birth_is_not_its_own() -> None:
    assert salvage(bucket((1, "app.db", 2, 2), born=2), owner(epoch=3, data_epoch=0), ("app.db",)) == (0, {})


def test_what_was_purged_is_not_its_own_though_no_lineage_says_so() -> None:
    store = bucket((1, "app.db", 1, 1), (2, "app.db", 1, 1))
    assert salvage(store, owner(epoch=4, data_epoch=0, born=3), ("app.db",)) == (0, {})
    assert salvage(store, owner(epoch=4, data_epoch=0, born=2), ("app.db",)) == (2, {"app.db": 1})


def heir(store: MemoryStore, epoch: int, parent: int, *files: str) -> None:
    """The lineage of an epoch that took over these files, and did not settle."""
    record = Lineage(
        nonce="n", tenant="acme", epoch=epoch, parent_epoch=parent, parent_tenant="acme", node="n1", session=1,
        cut=dict.fromkeys(files, f"{1:016x}"), reason="failover", at=2.0,
    )  # fmt: skip
    store.create(keys.lineage("acme", epoch), record.encode())


def test_an_heir_that_died_before_it_had_every_file_is_passed_over() -> None:
    store = bucket((1, "a.db", 1, 1), (1, "b.db", 1, 1), (2, "a.db", 1, 1))
    heir(store, 2, 1, "a.db", "b.db")
    assert salvage(store, owner(epoch=3, data_epoch=0), ("a.db", "b.db")) == (1, {"a.db": 1, "b.db": 1})
    assert salvage(store, owner(epoch=3, data_epoch=0), ("a.db",)) == (2, {"a.db": 1})


def test_half_an_heir_is_better_than_nothing() -> None:
    store = bucket((2, "a.db", 1, 1))
    heir(store, 2, 1, "a.db", "b.db")
    assert salvage(store, owner(epoch=3, data_epoch=0), ("a.db", "b.db")) == (2, {"a.db": 1})
