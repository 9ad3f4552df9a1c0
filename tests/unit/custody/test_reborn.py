"""A purged tenant whose name is used again begins empty, whoever dies on the way."""

from __future__ import annotations

import asyncio

import pytest

from node.agent.custody import take
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.held import HeldTenant
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.errors import Ambiguous
from node.bucket.memory import MemoryStore
from node.bucket.records import Owner
from node.bucket.spec import TenantSpec
from tests.unit.custody.test_rules import context, owner

WANT = Assignment(tenant="acme", generation=1, want="up", spec=TenantSpec(image="x", databases=("app.db",)))


class Deaf(MemoryStore):
    """Its lineage records cannot be written: who claims dies just after."""

    deaf = True

    def create(self, key: str, body: bytes) -> str:
        if self.deaf and key.startswith("lineage/"):
            raise Ambiguous("no answer", key=key)
        return super().create(key, body)


def purged() -> Deaf:
    """Tombstoned at epoch 3, whose data is still there."""
    store = Deaf()
    upload(store, 3)
    store.create(keys.owner("acme"), owner(state="purged", node="n1", session=7).encode())
    return store


def upload(store: Deaf, epoch: int) -> None:
    for level in ("0000", "0009"):
        store.create(f"{keys.database('acme', epoch, 'app.db')}/{level}/{1:016x}-{1:016x}.ltx", b"x")


def claim(store: Deaf) -> HeldTenant:
    return asyncio.run(take.take(context(store), WANT))


def record(store: Deaf) -> Owner:
    found = cas.read(store, keys.owner("acme"), Owner)
    assert found is not None
    return found.record


def dies_claiming(store: Deaf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cas, "backoff", lambda: lambda _: None)
    store.deaf = True
    with pytest.raises(Unconfirmed):
        claim(store)
    store.deaf = False


def test_it_is_born_empty_though_its_data_is_still_there() -> None:
    store = purged()
    store.deaf = False
    assert claim(store).claim.kind == "born"


def test_it_is_born_empty_though_the_first_who_claimed_it_died_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = purged()
    dies_claiming(store, monkeypatch)
    dies_claiming(store, monkeypatch)
    taken = claim(store)
    assert (taken.claim.kind, taken.claim.epoch, taken.sources) == ("born", 6, {})


def test_what_it_wrote_in_its_new_life_is_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    store = purged()
    dies_claiming(store, monkeypatch)
    upload(store, record(store).epoch)
    taken = claim(store)
    assert (taken.claim.kind, taken.sources["app.db"].epoch) == ("fresh", 4)
