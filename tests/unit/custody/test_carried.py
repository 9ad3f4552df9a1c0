"""A volume that goes on after a power cut: a claim that failed half-way is made again, and takes nothing from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.agent.custody import marker, take, volume
from node.agent.custody.context import Context
from node.agent.custody.errors import Unconfirmed
from node.agent.custody.held import HeldTenant
from node.agent.custody.marker import Marker
from node.agent.ports import Volume
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.errors import Ambiguous, Busy
from node.bucket.memory import MemoryStore
from node.bucket.records import Owner
from node.bucket.spec import TenantSpec
from tests.unit.custody.test_rules import context, owner

WANT = Assignment(
    tenant="acme", generation=1, want="up", spec=TenantSpec(image="x", databases=("app.db",), rpo=1.0)
)  # fmt: skip


class Moody(MemoryStore):
    """Fails once where it is told to: `unanswered` writes land first."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = self.unanswered = self.unlisted = ""

    def create(self, key: str, body: bytes) -> str:
        if self.refused and key.startswith(self.refused):
            self.refused = ""
            raise Ambiguous("no answer", key=key)
        return super().create(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        answer = super().replace(key, body, etag)
        if self.unanswered and key.startswith(self.unanswered):
            self.unanswered = ""
            raise Ambiguous("no answer", key=key)
        return answer

    def list(self, prefix: str, **how: Any) -> Any:
        claimed = cas.read(self, keys.owner("acme"), Owner)
        if self.unlisted and prefix.startswith(self.unlisted) and claimed and claimed.record.state == "claimed":
            self.unlisted = ""
            raise Busy("no answer", key=prefix)
        return super().list(prefix, **how)


class Scene:
    """Epoch 3 ran here until the machine went down: one transaction is in the bucket, two are on the volume."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Moody()
        self.vol = Volume(home / "data", home / "meta", home / "run", home / "marker")
        raw = volume.raw_folder(self.vol, "app.db")
        raw.mkdir(parents=True)
        for txid in (1, 2):
            (raw / f"{txid:016x}-{txid:016x}.ltx").write_bytes(b"x")
        self.store.create(f"{keys.database('acme', 3, 'app.db')}/0000/{1:016x}-{1:016x}.ltx", b"x")
        self.store.create(keys.owner("acme"), owner().encode())
        marker.write(self.vol.marker, Marker("acme", "n1", 3, 3, "before", "restored"))
        monkeypatch.setattr(volume, "intact", lambda *_: True)
        monkeypatch.setattr(cas, "backoff", lambda: lambda _: None)

    def claim(self, session: int = 8, node: str = "n1") -> HeldTenant:
        """As a new agent of that machine does, which remembers nothing."""
        found = self.vol if node == "n1" else None
        ctx: Context = context(self.store, node, session)
        ctx = replace(ctx, volumes=cast(Any, SimpleNamespace(find=lambda _: found)))
        return asyncio.run(take.take(ctx, WANT))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def no_lineage(store: Moody) -> None:
    store.refused = "lineage/"


def no_answer(store: Moody) -> None:
    store.unanswered = "owners/"


def no_listing(store: Moody) -> None:
    store.unlisted = keys.epoch_data("acme", 3)


def test_it_goes_on_under_a_new_epoch(scene: Scene) -> None:
    assert (scene.claim().claim.kind, scene.claim().claim.epoch) == ("carried", 5)


@pytest.mark.parametrize("session", [8, 9], ids=["the same session", "a later session"])
@pytest.mark.parametrize("trouble", [no_lineage, no_answer, no_listing])
def test_it_goes_on_though_the_first_claim_failed_half_way(
    scene: Scene, trouble: Callable[[Moody], None], session: int
) -> None:
    trouble(scene.store)
    with pytest.raises((Unconfirmed, Busy)):
        scene.claim()
    taken = scene.claim(session)
    assert (taken.claim.kind, taken.claim.epoch, taken.claim.data_epoch) == ("carried", 5, 3)


def test_it_does_not_go_on_once_it_ran_under_its_new_epoch(scene: Scene) -> None:
    scene.claim()
    marker.write(scene.vol.marker, Marker("acme", "n1", 0, 4, "before", "carried"))  # as `prepare` does
    assert scene.claim().claim.kind == "fresh"


def test_it_does_not_go_on_once_another_node_had_the_tenant(scene: Scene) -> None:
    scene.claim()
    held = cas.read(scene.store, keys.owner("acme"), Owner)
    assert held is not None
    released = held.record.model_copy(update={"state": "released", "nonce": "r"})
    scene.store.replace(keys.owner("acme"), released.encode(), held.etag)
    assert scene.claim(1, "n2").claim.kind == "fresh"
    held = cas.read(scene.store, keys.owner("acme"), Owner)
    assert held is not None
    given_up = held.record.model_copy(update={"state": "released", "nonce": "g"})
    scene.store.replace(keys.owner("acme"), given_up.encode(), held.etag)
    no_lineage(scene.store)
    with pytest.raises(Unconfirmed):
        scene.claim()  # this node again: to restore
    assert scene.claim().claim.kind == "fresh"
