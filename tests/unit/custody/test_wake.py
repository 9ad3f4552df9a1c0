"""Wishes to wake: few writes, the latest wins, and none is lost by a release or a lost answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.agent.custody import held as holding
from node.agent.custody import wake
from node.agent.custody.context import Bounds, Context
from node.agent.custody.errors import OwnedElsewhere
from node.agent.custody.held import HeldTenant
from node.agent.custody.values import Claim
from node.bucket import cas, keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Owner

CLAIM = Claim("acme", 3, 3, 7, "kept", ("app.db",), 1.0, 3600.0, 1, "kept")


class Scene:
    """One held tenant on a bucket in memory; the clock moves by hand, sleeping moves it too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.store = MemoryStore()
        self.writes: list[float | None] = []
        session = SimpleNamespace(node="n1", session=7, boot_id="b", live=lambda: True)
        self.ctx = Context(
            self.store, cast(Any, None), cast(Any, None), cast(Any, None), lambda: session, Path("/run"),
            lambda: self.now, lambda: self.now, Bounds(),
        )  # fmt: skip
        owner = Owner(
            nonce="n", tenant="acme", epoch=3, node="n1", session=7, state="running", data_epoch=3,
            observed_generation=1,
        )  # fmt: skip
        first = cas.write(self.store, keys.owner("acme"), owner, None, give_up=lambda _: None)
        self.tenant = HeldTenant(CLAIM, first, {})
        self.asleep = asyncio.Event()
        real = self.store.replace

        def replace(key: str, body: bytes, etag: str) -> str:
            answer = real(key, body, etag)
            self.writes.append(Owner.decode(body, key=key).wake_at)
            return answer

        monkeypatch.setattr(self.store, "replace", replace)
        monkeypatch.setattr(asyncio, "sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        await self.asleep.wait()
        self.now += seconds

    async def wish(self, at: float | None) -> None:
        await wake.wake_at(self.ctx, self.tenant, at)

    async def let_time_pass(self) -> None:
        self.asleep.set()
        if self.tenant.waking is not None:
            await self.tenant.waking

    def recorded(self) -> float | None:
        found = cas.read(self.store, keys.owner("acme"), Owner)
        assert found is not None
        return found.record.wake_at


def play(monkeypatch: pytest.MonkeyPatch, script: Callable[[Scene], Awaitable[None]]) -> Scene:
    async def main() -> Scene:
        scene = Scene(monkeypatch)
        await script(scene)
        return scene

    return asyncio.run(main())


def test_the_first_wish_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(monkeypatch, lambda s: s.wish(500.0)).writes == [500.0]


def test_many_wishes_are_one_more_write_and_the_latest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        for at in range(500, 600):
            await s.wish(float(at))
        assert s.writes == [500.0]
        await s.let_time_pass()

    scene = play(monkeypatch, script)
    assert scene.writes == [500.0, 599.0]
    assert scene.now == 100.0 + Bounds().wake_s


def test_the_same_wish_again_is_no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.wish(500.0)
        await s.wish(500.0)

    assert play(monkeypatch, script).writes == [500.0]


def test_one_that_waits_goes_with_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.wish(500.0)
        await s.wish(None)
        await holding.write_owner(s.ctx, s.tenant, state="released")
        await s.let_time_pass()

    scene = play(monkeypatch, script)
    assert scene.writes == [500.0, None]
    assert scene.recorded() is None


def test_one_that_came_during_a_write_is_written_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        await s.wish(500.0)
        await s.wish(501.0)
        release = asyncio.create_task(holding.write_owner(s.ctx, s.tenant, state="running"))
        await s.wish(502.0)
        await release
        await s.let_time_pass()

    assert play(monkeypatch, script).recorded() == 502.0


def test_whoever_lost_the_tenant_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(s: Scene) -> None:
        theirs = s.tenant.owner.record.model_copy(update={"node": "n2", "epoch": 4, "nonce": "x"})
        cas.write(s.store, keys.owner("acme"), theirs, s.tenant.owner.etag, give_up=lambda _: None)
        s.writes.clear()
        with pytest.raises(OwnedElsewhere):
            await s.wish(500.0)

    scene = play(monkeypatch, script)
    assert (scene.writes, scene.recorded()) == ([], None)
