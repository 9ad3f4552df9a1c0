"""Up to the first answer and down to the last byte, against the same two containers made and ended by the SDK."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.figures import Figure, quantile
from tests.bench.peer import Pair, Peer
from tests.bench.stage import APP, DATABASE, Stage, stage, timed
from tests.testbed.process import FLEET

# Long enough for the first snapshot and for what a start leaves to do: a down is measured of a tenant at rest.
REST_S = 1.5
TRIALS = 3
# Side by side unless it is clearly slower: it is a coin's toss between two that are equal.
UNSURE = 1.1


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Ratios of medians of pairs that alternate; the CLI's own cost."""
    with stage() as s:
        peer = Peer(s, s.box.folder / "peer")
        try:
            yield from _measured(s, peer, 4 if quick else 20)
        finally:
            peer.close()


def _measured(s: Stage, peer: Peer, rounds: int) -> Iterator[Figure]:
    up_at_once, down_at_once = _faster(s, peer)
    ups, downs, cli = _Series(), _Series(), _Series()
    phases: dict[str, list[float]] = defaultdict(list)
    for number, tenant in enumerate(s.names("up", rounds)):
        pair = peer.pair(tenant, s.spec)
        both: list[Callable[[], None]] = [
            lambda tenant=tenant: _ours(s, tenant, ups, downs, phases),  # type: ignore[misc]  # bound now, on purpose
            lambda pair=pair: _theirs(s, peer, pair, ups, downs, (up_at_once, down_at_once)),  # type: ignore[misc]  # a default of a lambda has no type
        ]
        for one in both if number % 2 else reversed(both):
            one()
    for tenant in s.names("cli", rounds):
        cli.ours.append(timed(lambda tenant=tenant: _by_cli(s, tenant)))  # type: ignore[misc]  # a default of a lambda has no type
        cli.theirs.append(timed(lambda tenant=tenant: s.up(f"api-{tenant}")))  # type: ignore[misc]  # a default of a lambda has no type
        s.down(tenant)
        s.down(f"api-{tenant}")
    how = {"peer_side_by_side": up_at_once}
    yield ups.ratio("up / create and start both", 1.25, {**how, **_medians(phases)})
    yield downs.ratio("down / stop and remove both", 1.5, {"peer_side_by_side": down_at_once})
    more_ms = (quantile(cli.ours, 0.5) - quantile(cli.theirs, 0.5)) * 1e3
    yield Figure("fleet up, more than its API calls", more_ms, "ms", 150, "at most", cli.raw())
    yield from _nothing_to_do(s, rounds)


class _Series:
    """Seconds of ours and of the peer's."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def ratio(self, name: str, bound: float, raw: dict[str, Any]) -> Figure:
        value = quantile(self.ours, 0.5) / quantile(self.theirs, 0.5)
        return Figure(name, value, "", bound, "at most", {**self.raw(), **raw})

    def raw(self) -> dict[str, Any]:
        return {
            "median_s": round(quantile(self.ours, 0.5), 3),
            "peer_median_s": round(quantile(self.theirs, 0.5), 3),
            "all_s": [round(v, 3) for v in self.ours],
            "peer_all_s": [round(v, 3) for v in self.theirs],
        }


def _ours(s: Stage, tenant: str, ups: _Series, downs: _Series, phases: dict[str, list[float]]) -> None:
    began = time.perf_counter()
    view = s.up(tenant)
    phases["put"].append(time.perf_counter() - began)
    s.answered(tenant)
    ups.ours.append(time.perf_counter() - began)
    for phase in view["phases"]:
        phases[phase["name"]].append(phase["duration_s"])
    _rest(s, tenant)
    downs.ours.append(timed(lambda: s.down(tenant)))


def _theirs(s: Stage, peer: Peer, pair: Pair, ups: _Series, downs: _Series, at_once: tuple[bool, bool]) -> None:
    ups.theirs.append(timed(lambda: peer.up(pair, at_once=at_once[0])))
    time.sleep(REST_S)
    downs.theirs.append(timed(lambda: peer.down(pair, at_once=at_once[1])))


def _rest(s: Stage, tenant: str) -> None:
    """Its first snapshot is in the bucket, and nothing of its start is left to do."""
    s.box.eventually(lambda: bool(s.box.api("GET", f"/v1/tenants/{tenant}")[1]["data_epoch"]), "a first snapshot")
    time.sleep(REST_S)


def _faster(s: Stage, peer: Peer) -> tuple[bool, bool]:
    """Whether the two containers are made, and ended, faster side by side than one after the other."""
    took: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for tenant in s.names("trial", TRIALS):
        for at_once in (False, True):
            pair = peer.pair(f"{tenant}-{int(at_once)}", s.spec)
            took["up", at_once].append(timed(lambda: peer.up(pair, at_once=at_once)))  # noqa: B023 - called at once
            time.sleep(REST_S)
            took["down", at_once].append(timed(lambda: peer.down(pair, at_once=at_once)))  # noqa: B023 - called at once
    up, down = (min(took[what, True]) <= UNSURE * min(took[what, False]) for what in ("up", "down"))
    return up, down


def _medians(phases: dict[str, list[float]]) -> dict[str, float]:
    return {f"phase_{name}_s": round(quantile(values, 0.5), 4) for name, values in phases.items()}


def _by_cli(s: Stage, tenant: str) -> None:
    s.box.fleet("up", tenant, "--app", str(APP), "--db", DATABASE, "--disk", "64m", "-q")


def _nothing_to_do(s: Stage, rounds: int) -> Iterator[Figure]:
    """The same without a start's noise: an up of what is up already."""
    (tenant,) = s.names("cli", 1)
    s.up(tenant)
    cli = _Series()
    for _ in range(rounds):
        cli.ours.append(timed(lambda: s.box.fleet("up", tenant, "-q")))
        cli.theirs.append(timed(lambda: s.up(tenant)))
    more_ms = (quantile(cli.ours, 0.5) - quantile(cli.theirs, 0.5)) * 1e3
    bare = [timed(lambda: subprocess.run([FLEET, "--version"], check=True, capture_output=True)) for _ in range(rounds)]
    raw = {**cli.raw(), "version_only_s": round(quantile(bare, 0.5), 3)}
    yield Figure("fleet up of what is up, more than the API", more_ms, "ms", 150, "at most", raw)
