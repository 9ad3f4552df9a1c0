"""Three rules that look like habits until one is broken: whose ETag, when the old prefix is listed, whom a revocation
spares. Each test fails on the variant that its docstring names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fleet.core import silence
from fleet.leases import Leases
from node.agent.custody import held as holding
from node.agent.custody import take
from node.agent.custody.context import Bounds, Context
from node.agent.custody.errors import OwnedElsewhere, Unconfirmed
from node.agent.custody.held import HeldTenant
from node.agent.custody.values import Claim
from node.api import Assignment
from node.bucket import cas, keys, liveness
from node.bucket.errors import Ambiguous
from node.bucket.memory import MemoryStore
from node.bucket.records import Capacity, Lease, Lineage, Owner
from node.bucket.spec import TenantSpec

CLAIM = Claim("acme", 3, 3, 7, "kept", ("app.db",), 1.0, 3600.0, 1, "kept")


def owner(**changes: object) -> Owner:
    fields: dict[str, object] = {
        "nonce": cas.new_nonce(), "tenant": "acme", "epoch": 3, "node": "n1", "session": 7, "state": "running",
        "data_epoch": 3, "observed_generation": 1, **changes,
    }  # fmt: skip
    return Owner.model_validate(fields)


def lease(**changes: object) -> Lease:
    fields: dict[str, object] = {
        "nonce": cas.new_nonce(), "node": "n2", "session": 5, "seq": 1, "ttl_s": 15.0, "margin_s": 3.0, "url": "",
        "state": "active", "mode": "shared", "capacity": Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1), **changes,
    }  # fmt: skip
    return Lease.model_validate(fields)


class Bucket(MemoryStore):
    """Notes the ETag of every conditional write of the owner record; `after` runs once such a write has landed."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []
        self.lose: int = 0
        self.after: Callable[[], None] = lambda: None

    def replace(self, key: str, body: bytes, etag: str) -> str:
        if key != keys.owner("acme"):
            return super().replace(key, body, etag)
        self.named.append(etag)
        answer = super().replace(key, body, etag)
        self.after()
        if self.lose:
            self.lose -= 1
            raise Ambiguous("no answer", key=key)
        return answer


def context(store: MemoryStore, node: str = "n1", session: int = 7) -> Context:
    view = SimpleNamespace(node=node, session=session, boot_id="b", live=lambda: True)
    volumes = SimpleNamespace(find=lambda _: None)
    clock = lambda: 1000.0  # noqa: E731 - both clocks are this one
    return Context(
        store, cast(Any, None), cast(Any, None), cast(Any, volumes), lambda: view, Path("/run"), clock, clock, Bounds()
    )


def held(store: Bucket) -> HeldTenant:
    return HeldTenant(CLAIM, cas.write(store, keys.owner("acme"), owner(), None, give_up=lambda _: None), {})


def test_a_holders_write_names_the_etag_of_its_own_last_one() -> None:
    """Broken: read the record, then write under the ETag that was just read."""

    async def main() -> None:
        store = Bucket()
        t = held(store)
        first = t.owner.etag
        await holding.write_owner(context(store), t, observed_generation=2)
        second = t.owner.etag
        await holding.write_owner(context(store), t, observed_generation=3)
        assert store.named == [first, second]

    asyncio.run(main())


def test_a_holder_that_was_replaced_overwrites_nobody() -> None:
    """Broken: read the record, then write under the ETag that was just read: the other's claim would be gone."""

    async def main() -> None:
        store = Bucket()
        t = held(store)
        theirs = owner(node="n2", session=5, epoch=4)
        cas.write(store, keys.owner("acme"), theirs, t.owner.etag, give_up=lambda _: None)
        with pytest.raises(OwnedElsewhere):
            await holding.write_owner(context(store), t, state="released")
        found = cas.read(store, keys.owner("acme"), Owner)
        assert found is not None
        assert found.record == theirs

    asyncio.run(main())


def test_a_write_whose_answer_was_lost_is_known_by_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: take the refusal of the repeat for somebody else's write, or read once and believe what is not there."""
    monkeypatch.setattr(cas, "backoff", lambda: lambda _: None)

    async def main() -> None:
        store = Bucket()
        t = held(store)
        store.lose = 1
        with pytest.raises(Unconfirmed):
            await holding.write_owner(context(store), t, observed_generation=2)
        written = await holding.write_owner(context(store), t, observed_generation=2)
        assert written.observed_generation == 2
        assert store.named == [store.named[0]] * 2

    asyncio.run(main())


def test_the_old_prefix_is_listed_after_the_claim_and_not_before() -> None:
    """Broken: list first, then claim: what its holder confirmed in between would be missing from the cut."""
    store = Bucket()

    def upload(txid: int) -> None:
        name = f"{txid:016x}-{txid:016x}"
        store.put(f"{keys.epoch_data('acme', 3)}app.db/{'0009' if txid == 1 else '0000'}/{name}.ltx", b"x")

    upload(1)
    upload(2)
    store.create(keys.node("n2"), lease(state="gone").encode())
    store.create(keys.owner("acme"), owner(node="n2", session=5).encode())
    store.after = lambda: upload(3)  # acknowledged by the holder before the claim landed
    want = Assignment(tenant="acme", generation=1, want="up", spec=TenantSpec(image="x", databases=("app.db",)))
    taken = asyncio.run(take.take(context(store), want))
    assert taken.claim.epoch == 4
    written = cas.read(store, keys.lineage("acme", 4), Lineage)
    assert written is not None
    assert written.record.cut == {"app.db": f"{3:016x}"}


def test_nobody_claims_from_a_machine_that_is_merely_silent() -> None:
    """Broken: take a lease that was not renewed for long as over. Its session is, only once it says so."""
    store = Bucket()
    store.create(keys.node("n2"), lease().encode())
    store.create(keys.owner("acme"), owner(node="n2", session=5).encode())
    want = Assignment(tenant="acme", generation=1, want="up", spec=TenantSpec(image="x", databases=("app.db",)))
    with pytest.raises(OwnedElsewhere):
        asyncio.run(take.take(context(store), want))
    assert store.named == []


def test_a_renewal_that_came_before_the_revocation_wins() -> None:
    """Broken: overwrite the lease whatever it says by now. The ETag is that of the read that decided."""
    store = MemoryStore()
    first = cas.write(store, keys.node("n2"), lease(), None, give_up=lambda _: None)
    renewed = lease(seq=2)
    cas.write(store, keys.node("n2"), renewed, first.etag, give_up=lambda _: None)
    named, told = [], []

    async def write(key: str, record: Lease, etag: str) -> cas.Held[Lease]:
        named.append(etag)
        return cas.write(store, key, record, etag, give_up=lambda _: None)

    world = SimpleNamespace(revoked={}, set_lease=lambda key, held: told.append(key))
    leases = Leases(cast(Any, world), cast(Any, SimpleNamespace(write=write)), cast(Any, None), lambda: True)
    seen, _ = liveness.look(None, first.record, began=0.0, ended=0.1)
    asyncio.run(leases._revoke("n2", first, 18.2, silence.Track(seen, "silent", 18.3, 18.3, None)))
    found = cas.read(store, keys.node("n2"), Lease)
    assert found is not None
    assert (found.record, named, told, world.revoked) == (renewed, [first.etag], [], {})


@pytest.mark.parametrize(
    ("began", "verdict"), [(18.0, "alive"), (18.09, "alive"), (18.2, "silent")],
    ids=["within its time", "counted from the end of the read", "after it"],
)  # fmt: skip
def test_silence_counts_from_the_end_of_the_read_that_showed_it(began: float, verdict: str) -> None:
    """Broken: one read is enough, or the time counts from its start."""
    seen, first = liveness.look(None, lease(), began=0.0, ended=0.1)
    assert first == "alive"
    assert liveness.look(seen, lease(), began=began, ended=began)[1] == verdict
