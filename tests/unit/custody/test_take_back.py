"""A release whose answer was lost: nothing of the tenant starts again before its record says that it is held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.agent.custody import durable
from node.agent.custody.custody import Custody
from node.agent.custody.errors import OwnedElsewhere, Unconfirmed
from node.agent.custody.held import HeldTenant, write_owner
from node.agent.custody.values import Claim
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import Ambiguous
from node.bucket.memory import MemoryStore
from node.bucket.records import Owner

CLAIM = Claim("acme", 3, 3, 7, "kept", ("app.db",), 1.0, 3600.0, 1, "kept")


class Scene:
    """One held tenant whose record is in a bucket in memory; `late` writes are applied and not answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, claim: Claim) -> None:
        self.store, self.late = MemoryStore(), 0
        session = SimpleNamespace(node="n1", session=7, boot_id="b", live=lambda: True)
        nothing = cast(Any, None)
        self.custody = Custody(self.store, nothing, nothing, nothing, lambda: session, Path("/run"))
        owner = Owner(
            nonce="n", tenant="acme", epoch=3, node="n1", session=7, state="running", data_epoch=claim.data_epoch,
            observed_generation=1,
        )  # fmt: skip
        first = cas.write(self.store, keys.owner("acme"), owner, None, give_up=lambda _: None)
        self.tenant = HeldTenant(claim, first, {})
        self.custody._held["acme"] = self.tenant
        replace = self.store.replace

        def doubtful(key: str, body: bytes, etag: str) -> str:
            answer = replace(key, body, etag)
            if self.late:
                self.late -= 1
                raise Ambiguous("no answer", key=key)
            return answer

        monkeypatch.setattr(self.store, "replace", doubtful)
        monkeypatch.setattr(cas, "backoff", lambda: lambda _: None)

    def record(self) -> Held[Owner]:
        found = cas.read(self.store, keys.owner("acme"), Owner)
        assert found is not None
        return found

    async def release_in_doubt(self) -> None:
        """It lands, and nobody here knows."""
        self.late = 1
        with pytest.raises(Unconfirmed):
            await write_owner(self.custody._ctx, self.tenant, state="released")
        assert self.record().record.state == "released"


def play(monkeypatch: pytest.MonkeyPatch, script: Callable[[Scene], Awaitable[None]], claim: Claim = CLAIM) -> Scene:
    async def main() -> Scene:
        scene = Scene(monkeypatch, claim)
        await script(scene)
        scene.custody.close()
        return scene

    return asyncio.run(main())


def test_a_release_in_doubt_is_taken_back_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.release_in_doubt()
        await s.custody.resume("acme")

    assert play(monkeypatch, script).record().record.state == "running"


def test_it_is_taken_back_though_another_write_found_out_that_it_landed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.release_in_doubt()
        await s.custody.wake_at("acme", 500.0)
        await s.custody.resume("acme")

    record = play(monkeypatch, script).record().record
    assert (record.state, record.wake_at) == ("running", 500.0)


def test_what_was_not_settled_is_taken_back_as_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.release_in_doubt()
        await s.custody.observe(s.tenant.claim, 2)
        await s.custody.resume("acme")

    claim = Claim("acme", 3, 2, 7, "fresh", ("app.db",), 1.0, 3600.0, 1, "failover")
    assert play(monkeypatch, script, claim).record().record.state == "claimed"


def test_a_worker_that_starts_while_its_tenant_settles_does_not_unsettle_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        settles = asyncio.create_task(write_owner(s.custody._ctx, s.tenant, state="running", data_epoch=3))
        await asyncio.sleep(0)
        assert s.tenant.pending is not None  # on its way to the bucket
        await s.custody.resume("acme")
        await settles

    claim = Claim("acme", 3, 2, 7, "fresh", ("app.db",), 1.0, 3600.0, 1, "failover")
    assert play(monkeypatch, script, claim).record().record.state == "running"


def test_what_another_took_meanwhile_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.release_in_doubt()
        found = s.record()
        theirs = found.record.model_copy(update={"nonce": "x", "node": "n2", "session": 1, "epoch": 4})
        s.store.replace(keys.owner("acme"), theirs.encode(), found.etag)
        with pytest.raises(OwnedElsewhere):
            await s.custody.resume("acme")

    assert play(monkeypatch, script).record().record.node == "n2"


def test_what_runs_as_its_record_says_costs_no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.custody.resume("acme")

    assert play(monkeypatch, script).record().record.nonce == "n"


def test_nothing_is_acknowledged_while_the_record_says_released(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await durable._still_ours(s.custody._ctx, s.tenant)
        await s.release_in_doubt()
        await s.custody.wake_at("acme", 500.0)  # by now this node knows that it landed
        with pytest.raises(OwnedElsewhere):
            await durable._still_ours(s.custody._ctx, s.tenant)
        await s.custody.resume("acme")
        await durable._still_ours(s.custody._ctx, s.tenant)

    play(monkeypatch, script)


@pytest.mark.parametrize(("data_epoch", "noted"), [(2, None), (3, "back")])
def test_a_restore_counts_as_done_only_once_its_epoch_holds_the_data(
    monkeypatch: pytest.MonkeyPatch, data_epoch: int, noted: str | None
) -> None:
    """One that failed half-way and was given up is carried out by the next claim, not taken for done."""

    async def script(scene: Scene) -> None:
        await scene.custody.release("acme", to="released", generation=2)

    scene = play(monkeypatch, script, replace(CLAIM, data_epoch=data_epoch, restore_id="back"))
    assert scene.record().record.state == "released"
    assert scene.record().record.restore_id == noted
