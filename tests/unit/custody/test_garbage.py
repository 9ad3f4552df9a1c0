"""What a collection may take: never what a restore of a retained moment would read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.agent.custody import garbage
from node.agent.custody.garbage import Fate, Holding
from node.bucket.records import Lineage

HORIZON = 1000.0


def claimed(epoch: int, at: float, *cut: str) -> Lineage:
    return Lineage(
        nonce="n", tenant="acme", epoch=epoch, parent_epoch=epoch - 1, parent_tenant="acme",
        cut=dict.fromkeys(cut, f"{epoch:016x}"), node="n1", session=1, reason="failover", at=at,
    )  # fmt: skip


def fates(holdings: Sequence[Holding], history: Sequence[Lineage], data_epoch: int) -> dict[int, str]:
    found = garbage.judge(holdings, history, data_epoch=data_epoch, horizon=HORIZON)
    return {f.epoch: "goes" if f.goes else f.why for f in found}


def test_an_epoch_goes_once_a_later_one_reaches_back_to_the_oldest_retained_moment() -> None:
    old, new = Holding(1, {"a.db": 0.0}, 500.0), Holding(2, {"a.db": 999.0}, 5000.0)
    history = [claimed(1, 0.0), claimed(2, 998.0, "a.db")]
    assert fates([old, new], history, 2) == {1: "goes", 2: "current"}


@pytest.mark.parametrize(
    ("claimed_at", "since"),
    [(998.0, 1001.0), (1001.0, 1001.0), (998.0, None)],
    ids=["its first snapshot is younger", "its claim is younger", "nothing of it can be restored"],
)
def test_an_epoch_stays_while_a_retained_moment_is_its_own(claimed_at: float, since: float | None) -> None:
    old, new = Holding(1, {"a.db": 0.0}, 500.0), Holding(2, {"a.db": since}, 5000.0)
    history = [claimed(1, 0.0), claimed(2, claimed_at, "a.db")]
    assert fates([old, new], history, 2)[1] == "needed"


def test_an_epoch_that_died_before_all_of_its_files_were_there_replaces_none() -> None:
    old = Holding(1, {"a.db": 0.0, "b.db": 0.0}, 500.0)
    half, new = Holding(2, {"a.db": 600.0}, 600.0), Holding(3, {"a.db": 1500.0, "b.db": 1500.0}, 5000.0)
    history = [claimed(1, 0.0), claimed(2, 599.0, "a.db", "b.db"), claimed(3, 1400.0, "a.db", "b.db")]
    assert fates([old, half, new], history, 3) == {1: "needed", 2: "needed", 3: "current"}


def test_a_file_that_a_later_epoch_never_had_keeps_nothing() -> None:
    old, new = Holding(1, {"a.db": 0.0, "b.db": 0.0}, 500.0), Holding(2, {"a.db": 600.0}, 5000.0)
    assert fates([old, new], [claimed(1, 0.0), claimed(2, 599.0, "a.db")], 2)[1] == "goes"


def test_what_a_zombie_uploaded_lately_stays_for_the_retention() -> None:
    old, new = Holding(1, {"a.db": 0.0}, 1001.0), Holding(2, {"a.db": 600.0}, 5000.0)
    assert fates([old, new], [claimed(1, 0.0), claimed(2, 599.0, "a.db")], 2)[1] == "young"


def test_an_epoch_without_a_lineage_replaces_none_and_can_be_replaced() -> None:
    old, odd, new = (Holding(n, {"a.db": 500.0}, 500.0) for n in (1, 2, 3))
    assert fates([old, odd, new], [claimed(1, 0.0), claimed(3, 1200.0, "a.db")], 3)[1] == "needed"
    assert fates([old, odd, new], [claimed(1, 0.0), claimed(3, 500.0, "a.db")], 3) == {
        1: "goes",
        2: "goes",
        3: "current",
    }


def test_an_epoch_above_the_owners_is_nobodys_to_judge() -> None:
    new, later = Holding(2, {"a.db": 0.0}, 500.0), Holding(3, {"a.db": 0.0}, 500.0)
    assert fates([new, later], [claimed(2, 0.0), claimed(3, 0.0, "a.db")], 2) == {2: "current", 3: "ahead"}


def test_a_restore_that_began_in_time_has_an_hour_more() -> None:
    assert garbage.horizon(10_000.0, 5_000.0) == 10_000.0 - 5_000.0 - garbage.GRACE_S


MOMENTS = st.sampled_from([0.0, 500.0, 999.0, HORIZON, 1001.0, 1500.0, 2500.0])
FILES = st.dictionaries(st.sampled_from(["a.db", "b.db"]), st.one_of(st.none(), MOMENTS), max_size=2)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Holding], list[Lineage]]:
    """Epochs claimed one after the other, by clocks that disagree, each holding something of files it may not name."""
    holdings, history = [], []
    for epoch in range(1, draw(st.integers(2, 6))):
        at = draw(MOMENTS)
        since = draw(FILES)
        holdings.append(Holding(epoch, since, draw(MOMENTS)))
        if draw(st.booleans()) or draw(st.booleans()):
            history.append(claimed(epoch, at, *draw(st.sets(st.sampled_from(["a.db", "b.db"])))))
    return holdings, history


def restored_from(holdings: Sequence[Holding], history: Sequence[Lineage], db: str, moment: float) -> int | None:
    """The epoch that a restore takes a file from, as `travel.sources` picks it."""
    by_epoch = {h.epoch: h for h in holdings}
    for record in sorted(history, key=lambda r: r.epoch, reverse=True):
        h = by_epoch.get(record.epoch)
        since = h.since.get(db) if h else None
        if record.at <= moment and since is not None and since <= moment:
            return record.epoch
    return None


@settings(max_examples=400)
@given(histories(), st.sampled_from([HORIZON, 1000.5, 1200.0, 1500.0, 2500.0, 4000.0]))
def test_every_retained_moment_is_restored_from_the_same_epoch_after_a_collection(
    found: tuple[list[Holding], list[Lineage]], moment: float
) -> None:
    holdings, history = found
    newest = holdings[-1].epoch
    gone = {f.epoch for f in garbage.judge(holdings, history, data_epoch=newest, horizon=HORIZON) if f.goes}
    kept = [h for h in holdings if h.epoch not in gone]
    for db in ("a.db", "b.db"):
        before = restored_from(holdings, history, db, moment)
        after = restored_from(kept, history, db, moment)
        # A file that a later epoch never had was not the tenant's any more: only that may be missing afterwards.
        had = any(r.at <= HORIZON and db in {*r.cut, *h.since} for h in kept for r in history if r.epoch == h.epoch)
        assert after == before or (before in gone and not had)


@given(histories())
def test_the_epoch_of_the_owner_and_all_above_it_stay(found: tuple[list[Holding], list[Lineage]]) -> None:
    holdings, history = found
    data_epoch = holdings[len(holdings) // 2].epoch
    verdicts = garbage.judge(holdings, history, data_epoch=data_epoch, horizon=HORIZON)
    assert not [f for f in verdicts if f.goes and f.epoch >= data_epoch]
    assert [f.epoch for f in verdicts] == [h.epoch for h in holdings]


def test_a_fate_says_by_which_epoch() -> None:
    old, new = Holding(1, {"a.db": 0.0}, 500.0), Holding(2, {"a.db": 600.0}, 5000.0)
    found = garbage.judge([old, new], [claimed(2, 599.0, "a.db")], data_epoch=2, horizon=HORIZON)
    assert found[0] == Fate(1, goes=True, why="superseded", by=2)


@pytest.mark.parametrize(
    ("at", "settled", "said"),
    [
        (0.0, True, (True, "expired")),
        (900.0, True, (True, "expired")),
        (900.1, True, (False, "young")),
        (0.0, False, (False, "unsettled")),
        (1000.1, True, (False, "clock")),
    ],
)
def test_a_volume_set_aside_expires_after_the_retention_if_nobody_may_need_it(
    at: float, settled: bool, said: tuple[bool, str]
) -> None:
    assert garbage.expires(at, now=1000.0, retention_s=100.0, settled=settled) == said
