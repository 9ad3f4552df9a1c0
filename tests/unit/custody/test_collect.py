"""Collecting against a bucket in memory: who may, what goes, and when it stops."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from node.agent.custody import collect
from node.agent.custody.claim import Me
from node.agent.custody.errors import Refused
from node.bucket import cas, keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Lineage, Owner

ME = Me("n1", 4, "boot")
RETENTION_S = 3600.0
NOW = 1_000_000.0


def owner(**changes: object) -> Owner:
    fields: dict[str, object] = {
        "nonce": cas.new_nonce(), "tenant": "acme", "epoch": 3, "node": "n1", "session": 4, "state": "running",
        "data_epoch": 3, "observed_generation": 1, **changes,
    }  # fmt: skip
    return Owner.model_validate(fields)


class Bucket(MemoryStore):
    """Epochs 1 and 2 long replaced by 3. `between` runs after each deletion."""

    def __init__(self, record: Owner | None = None) -> None:
        self.now = NOW
        super().__init__(clock=lambda: self.now)
        self.deleted: list[str] = []
        self.heads = 0
        self.taken_over_by: Owner | None = None
        self.write(record or owner())
        for epoch in (1, 2, 3):
            self.upload(epoch, NOW - 90_000 + epoch, "0009/0000000000000001-0000000000000001")
            self.upload(epoch, NOW - 80_000 + epoch, "0000/0000000000000002-0000000000000002")
            self.claimed(epoch, NOW - 90_000 + epoch, {"app.db": f"{2:016x}"} if epoch > 1 else {})

    def write(self, record: Owner) -> None:
        self.put(keys.owner("acme"), record.encode())

    def upload(self, epoch: int, at: float, name: str) -> None:
        self.now = at
        said = {"litestream-timestamp": datetime.fromtimestamp(at, UTC).isoformat()}
        self.put(f"{keys.epoch_data('acme', epoch)}app.db/{name}.ltx", b"x" * 10, said)
        self.now = NOW

    def claimed(self, epoch: int, at: float, cut: dict[str, str]) -> None:
        record = Lineage(
            nonce="n", tenant="acme", epoch=epoch, parent_epoch=epoch - 1, parent_tenant="acme", cut=cut, node="n1",
            session=1, reason="failover", at=at,
        )  # fmt: skip
        self.put(keys.lineage("acme", epoch), record.encode())

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        self.deleted += batch
        super().delete(batch)
        if self.taken_over_by is not None:
            self.write(self.taken_over_by)

    def head(self, key: str):  # type: ignore[no-untyped-def] # as the base's
        self.heads += 1
        return super().head(key)

    def epochs(self) -> set[str]:
        return {entry.key.split("/")[2] for entry in self.list(keys.tenant_data("acme"))}


def run(bucket: Bucket, me: Me = ME) -> collect.Collected:
    found = collect.survey(bucket, "acme", me, RETENTION_S, NOW)
    return collect.collect(bucket, "acme", me, found)


def test_replaced_epochs_go_and_the_owners_and_the_lineage_stay() -> None:
    bucket = Bucket()
    assert run(bucket) == collect.Collected(objects=4, size_bytes=40)
    assert bucket.epochs() == {"e00000003"}
    assert len(list(bucket.list(keys.lineages("acme")))) == 3


def test_a_survey_deletes_nothing_and_says_what_would_go() -> None:
    bucket = Bucket()
    found = collect.survey(bucket, "acme", ME, RETENTION_S, NOW)
    assert [(f.epoch, f.goes, f.why) for f in found.fates] == [
        (1, True, "superseded"), (2, True, "superseded"), (3, False, "current"),
    ]  # fmt: skip
    assert found.holdings[1].size_bytes == 20
    assert bucket.deleted == []


def test_within_the_retention_nothing_goes() -> None:
    bucket = Bucket()
    found = collect.survey(bucket, "acme", ME, 90_000.0, NOW)
    assert not [f for f in found.fates if f.goes]


@pytest.mark.parametrize(
    "record",
    [
        owner(node="n2"),
        owner(session=5),
        owner(epoch=4),
        owner(epoch=4, data_epoch=4, node="n2"),
        owner(state="claimed"),
        owner(state="purged"),
        owner(state="damaged"),
        owner(state="released", node="n2"),
        owner(state="running", session=3),
    ],
)
def test_who_is_not_named_as_the_settled_owner_may_not_even_look(record: Owner) -> None:
    bucket = Bucket(record)
    with pytest.raises(Refused, match="nothing is deleted"):
        run(bucket)
    assert bucket.deleted == []


def test_whoever_had_a_tenant_last_collects_while_it_is_down() -> None:
    assert run(Bucket(owner(state="released", session=3))).objects == 4


@pytest.mark.parametrize("thief", [owner(node="n2", epoch=4), owner(session=5), owner(epoch=4, state="claimed")])
def test_a_collector_that_lost_the_tenant_midway_deletes_nothing_more(thief: Owner) -> None:
    bucket = Bucket()
    bucket.taken_over_by = thief
    with pytest.raises(Refused):
        run(bucket)
    assert {key.split("/")[2] for key in bucket.deleted} == {"e00000001"}
    assert bucket.epochs() == {"e00000002", "e00000003"}


def test_ownership_is_read_again_before_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.custody.purge._BATCH", 1)
    bucket = Bucket()
    bucket.taken_over_by = owner(node="n2", epoch=4)
    with pytest.raises(Refused):
        run(bucket)
    assert len(bucket.deleted) == 1


def test_what_a_zombie_uploaded_past_a_cut_is_told_and_stays_for_the_retention() -> None:
    bucket = Bucket()
    bucket.upload(2, NOW - 60, "0000/0000000000000003-0000000000000007")
    found = collect.survey(bucket, "acme", ME, RETENTION_S, NOW)
    assert found.orphans == {2: {"app.db": 5}}
    assert {f.epoch: f.why for f in found.fates} == {1: "superseded", 2: "young", 3: "current"}
    later = collect.survey(bucket, "acme", ME, RETENTION_S, NOW + 3 * RETENTION_S)
    assert {f.epoch: f.goes for f in later.fates} == {1: True, 2: True, 3: False}


def test_a_tenant_with_one_epoch_costs_no_more_than_a_look() -> None:
    bucket = Bucket()
    run(bucket)
    bucket.heads = 0
    assert collect.survey(bucket, "acme", ME, RETENTION_S, NOW) == collect.Survey(3)
    assert bucket.heads == 0


def test_an_epoch_whose_successor_lost_its_first_snapshot_stays() -> None:
    """Nobody knows why it is gone; what it replaced is the only way to that moment."""
    bucket = Bucket()
    for epoch in (2, 3):
        MemoryStore.delete(bucket, [f"{keys.epoch_data('acme', epoch)}app.db/0009/{1:016x}-{1:016x}.ltx"])
    assert run(bucket).objects == 0
