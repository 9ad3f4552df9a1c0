"""The janitor's round: whose turn it is, what it reports, what it drops, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from node.agent.custody.collect import Collected, Survey
from node.agent.custody.errors import Refused
from node.agent.custody.garbage import Fate, Holding
from node.agent.janitor import DAY_S, FIRST_S, SPREAD_S, Janitor
from node.agent.node import Node
from node.agent.ports import AsideVolume
from node.agent.walk import Walk
from node.api import GarbageReport

FOUND = Survey(
    3,
    (Fate(1, goes=True, why="superseded", by=3), Fate(2, goes=False, why="young", by=3)),
    {1: Holding(1, {"app.db": 0.0}, 0.0, objects=4, size_bytes=40), 2: Holding(2, {"app.db": 0.0}, 9.0, 2, 20)},
    {2: {"app.db": 5}},
)


@dataclass
class Custody:
    """What the janitor asks of custody; `found` None: the tenant is not settled here."""

    found: Survey | None = FOUND
    is_settled: bool = True
    collected: list[str] = field(default_factory=list)

    async def survey(self, tenant: str, retention_s: float) -> Survey:
        if self.found is None:
            raise Refused(tenant, "not ours", reason="not_ours", retryable=False)
        return self.found

    async def collect(self, tenant: str, found: Survey) -> Collected:
        self.collected.append(tenant)
        return Collected(4, 40)

    async def settled(self, tenant: str) -> bool:
        return self.is_settled

    async def retention_s(self) -> float:
        return 100.0


@dataclass
class Volumes:
    there: list[AsideVolume] = field(default_factory=list)

    def aside(self) -> list[AsideVolume]:
        return list(self.there)

    def drop_aside(self, path: Path) -> None:
        self.there = [v for v in self.there if v.path != path]


@dataclass
class Scene:
    custody: Custody = field(default_factory=Custody)
    volumes: Volumes = field(default_factory=Volumes)
    live: bool = True
    at: float = 0.0
    epoch: int = 3
    told: dict[str, Any] = field(default_factory=dict)
    heard: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        parts = SimpleNamespace(custody=self.custody, volumes=self.volumes)
        self.walk = Walk("acme", cast(Any, parts))
        want = SimpleNamespace(spec=SimpleNamespace(retention=100.0))
        self.node = SimpleNamespace(
            tenants={"acme": SimpleNamespace(want=want, walk=self.walk)},
            parts=parts,
            head=SimpleNamespace(node="n1"),
            adopted=True,
            board=SimpleNamespace(
                get=lambda _: SimpleNamespace(data_epoch=self.epoch), update=lambda _, **said: self.told.update(said)
            ),
        )
        self.janitor = Janitor(
            cast(Node, self.node), lambda: self.live, lambda o, b: self.heard.append((o, b)), now=lambda: 1000.0,
            monotonic=lambda: self.at, draw=lambda: 0.5,
        )  # fmt: skip

    def tidy(self, *, dry_run: bool = False) -> GarbageReport:
        return run(lambda: self.janitor.tidy("acme", dry_run=dry_run))


def run(call: Callable[[], Coroutine[Any, Any, GarbageReport]]) -> GarbageReport:
    return asyncio.run(call())


def aside(at: float, tenant: str = "acme") -> AsideVolume:
    return AsideVolume(tenant, Path(f"/state/aside/{tenant}-{at}"), at, 7)


def test_a_dry_run_says_what_would_go_and_deletes_nothing() -> None:
    scene = Scene(volumes=Volumes([aside(0.0), aside(950.0), aside(0.0, "other")]))
    report = scene.tidy(dry_run=True)
    assert [(i.kind, i.goes, i.reason, i.size_bytes) for i in report.items] == [
        ("epoch", True, "superseded", 40), ("epoch", False, "young", 20), ("orphans", False, "orphaned", 0),
        ("volume", True, "expired", 7), ("volume", False, "young", 7),
    ]  # fmt: skip
    assert (report.deleted_objects, scene.custody.collected, len(scene.volumes.there)) == (0, [], 3)


def test_a_collection_deletes_and_counts_it() -> None:
    scene = Scene(volumes=Volumes([aside(0.0), aside(950.0)]))
    report = scene.tidy()
    assert (report.owner, report.deleted_objects, report.deleted_bytes, report.done) == (True, 4, 40, True)
    assert scene.heard == [(4, 40)]
    assert scene.volumes.there == [aside(950.0)]


def test_what_a_zombie_left_is_told_as_a_warning() -> None:
    scene = Scene()
    scene.tidy(dry_run=True)
    assert scene.told["warnings"] == scene.walk.told()
    assert "epoch 2 has 5 transactions of app.db" in scene.walk.told()[0]


@pytest.mark.parametrize("live", [True, False])
def test_of_a_tenant_that_is_not_settled_here_only_its_volumes_are_judged(live: bool) -> None:
    scene = Scene(Custody(found=None if live else FOUND), Volumes([aside(0.0)]), live=live)
    report = scene.tidy()
    assert (report.owner, scene.custody.collected) == (False, [])
    assert scene.volumes.there == []


def test_a_volume_of_a_tenant_that_is_settled_nowhere_stays() -> None:
    scene = Scene(Custody(found=None, is_settled=False), Volumes([aside(0.0)]))
    assert [i.reason for i in scene.tidy().items] == ["unsettled"]
    assert scene.volumes.there == [aside(0.0)]


def test_a_tenants_turn_is_soon_after_it_moved_and_then_once_a_day() -> None:
    scene = Scene()
    turns: list[float] = []
    for minute in range(3 * 24 * 60):
        scene.at = minute * 60.0
        scene.epoch = 3 if scene.at < 2 * DAY_S else 4
        turns += [scene.at for _ in scene.janitor._ready()]
    first = FIRST_S + SPREAD_S / 2
    assert turns[0] - first < 60
    assert turns[1] - turns[0] == pytest.approx(DAY_S, abs=60)
    assert turns[2] - 2 * DAY_S == pytest.approx(first, abs=60)
    assert len(turns) == 3


def test_without_a_session_nobodys_turn_comes() -> None:
    scene = Scene(live=False)
    scene.janitor._ready()
    scene.at = 10 * DAY_S
    assert scene.janitor._ready() == []
