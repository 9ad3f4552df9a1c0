"""Fifty tenants up side by side, against the same fifty pairs of containers side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.bench.figures import Figure
from tests.bench.peer import Pair, Peer
from tests.bench.stage import Stage, side_by_side, stage, timed

TENANTS = 50
# What the engine is fastest with was measured: 4 to 16 at once differ little, more is slower.
PEER_AT_ONCE = (4, 8, 16)


def run(*, quick: bool = False) -> Iterator[Figure]:
    """Both in one run: ours all at once, as a user may; the peer with the degree that suits it best."""
    count = 8 if quick else TENANTS
    with stage() as s:
        peer = Peer(s, s.box.folder / "peer")
        try:
            first = _ours(s, count)
            theirs = {at_once: _theirs(s, peer, count, at_once) for at_once in PEER_AT_ONCE[: 1 if quick else None]}
            second = _ours(s, count)
        finally:
            peer.close()
    best = min(theirs, key=lambda n: theirs[n])
    raw = {"ours_s": [round(v, 2) for v in (first, second)], "peer_s_by_at_once": theirs, "best_at_once": best}
    name = f"{count} tenants up / {count} pairs of containers"
    yield Figure(name, min(first, second) / theirs[best], "", raw=raw)


def _ours(s: Stage, count: int) -> float:
    names = s.names("many", count)

    def up(tenant: str) -> None:
        s.up(tenant)
        s.answered(tenant)

    took = timed(lambda: side_by_side(up, names, count))
    side_by_side(lambda tenant: s.down(tenant), names, 8)
    return took


def _theirs(s: Stage, peer: Peer, count: int, at_once: int) -> float:
    pairs: list[Pair] = [peer.pair(tenant, s.spec) for tenant in s.names("pair", count)]
    took = timed(lambda: side_by_side(lambda pair: peer.up(pair, at_once=False), pairs, at_once))
    side_by_side(lambda pair: peer.down(pair, at_once=True), pairs, 8)
    time.sleep(1)
    return round(took, 2)
