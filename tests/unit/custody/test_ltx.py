"""Litestream's objects: names, chains, cuts, positions, moments."""

from __future__ import annotations

import pytest

from node.agent.custody import cut, ltx, position, travel
from node.agent.custody.ltx import Ltx
from node.agent.custody.position import Position
from node.bucket.records import Lineage
from node.bucket.store import Entry

PREFIX = "data/acme/e00000003/"


def obj(level: int, first: int, last: int) -> Ltx:
    return Ltx(level, first, last, f"{PREFIX}app.db/{level:04x}/{first:016x}-{last:016x}.ltx")


def entry(name: str, etag: str = "e") -> Entry:
    return Entry(key=PREFIX + name, etag=etag, size_bytes=1, modified=0.0)


def raw(*txids: int) -> list[Ltx]:
    return [obj(0, t, t) for t in txids]


NAMES = [
    ("app.db/0000/0000000000000001-0000000000000001.ltx", ("app.db", 0, 1, 1)),
    ("sub/app.db/0009/0000000000000001-000000000000000a.ltx", ("sub/app.db", 9, 1, 10)),
    ("app.db/0000/0000000000000002-0000000000000001.ltx", None),
    ("app.db/0000/1-1.ltx", None),
    ("app.db/0000/0000000000000001-0000000000000001.ltx.tmp", None),
    ("app.db/generations/x", None),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_only_names_as_litestream_writes_them_are_taken_for_its_objects(
    name: str, expected: tuple[str, int, int, int] | None
) -> None:
    found = ltx.parse(entry(name), PREFIX)
    assert (found and (found[0], found[1].level, found[1].first, found[1].last)) == expected


CHAINS = [
    ("raw ones from the start", raw(1, 2, 3), 3, [(0, 1), (0, 2), (0, 3)]),
    ("a snapshot and what follows", [obj(9, 1, 2), *raw(2, 3, 4)], 4, [(9, 2), (0, 3), (0, 4)]),
    ("the newest snapshot that is not past it", [obj(9, 1, 2), obj(9, 1, 9), *raw(3, 4)], 4, [(9, 2), (0, 3), (0, 4)]),
    ("the object that reaches furthest", [*raw(1, 2, 3, 4), obj(1, 2, 4)], 4, [(0, 1), (1, 4)]),
    ("compacted twice", [obj(2, 1, 5), obj(1, 4, 7), *raw(8)], 8, [(2, 5), (1, 7), (0, 8)]),
    ("nothing past it", [*raw(1, 2), obj(1, 3, 6)], 2, [(0, 1), (0, 2)]),
    ("a gap", raw(1, 2, 4), 4, []),
    ("inside a compacted one", [*raw(1), obj(1, 2, 6)], 4, []),
    ("no beginning", raw(5, 6), 6, []),
    ("nothing", [], 1, []),
]


@pytest.mark.parametrize(("why", "objects", "txid", "expected"), CHAINS, ids=[row[0] for row in CHAINS])
def test_the_chain_to_a_transaction(why: str, objects: list[Ltx], txid: int, expected: list[tuple[int, int]]) -> None:
    assert [(o.level, o.last) for o in ltx.plan(objects, txid)] == expected


NEWEST = [
    ("raw ones", raw(1, 2, 3), 3),
    ("pruned raw ones behind a snapshot", [obj(9, 1, 5), *raw(6, 7)], 7),
    ("a gap before the snapshot does not matter", [*raw(1, 3), obj(9, 1, 5), *raw(6)], 6),
    ("a gap after it does", [obj(9, 1, 5), *raw(7)], 5),
    ("compacted ones overlap", [obj(9, 1, 2), obj(1, 2, 6), *raw(6, 7)], 7),
    ("nothing whole", raw(4), 0),
]


@pytest.mark.parametrize(("why", "objects", "expected"), NEWEST, ids=[row[0] for row in NEWEST])
def test_the_newest_transaction_that_can_be_restored(why: str, objects: list[Ltx], expected: int) -> None:
    assert ltx.newest(objects) == expected
    assert not expected or ltx.plan(objects, expected)


CUTS = [
    ("whole", {"app.db": tuple(raw(1, 2))}, {}, cut.Whole({"app.db": 2})),
    ("at what was proven", {"app.db": tuple(raw(1, 2))}, {"app.db": ltx.hex16(2)}, cut.Whole({"app.db": 2})),
    ("a file that never existed", {}, {}, cut.Whole({})),
]


@pytest.mark.parametrize(("why", "objects", "proven", "expected"), CUTS, ids=[row[0] for row in CUTS])
def test_a_cut(why: str, objects: cut.Objects, proven: dict[str, str], expected: cut.Cut) -> None:
    assert cut.cut(objects, ["app.db"], proven) == expected


BROKEN = [
    ("a gap", {"app.db": tuple(raw(1, 2, 4))}, {}, {"app.db": 2}),
    ("the last ones are gone", {"app.db": tuple(raw(1, 2))}, {"app.db": ltx.hex16(5)}, {"app.db": 2}),
    ("all are gone", {}, {"app.db": ltx.hex16(5)}, {}),
    ("one of two files", {"b.db": tuple(raw(1))}, {"app.db": ltx.hex16(1)}, {"b.db": 1}),
]


@pytest.mark.parametrize(("why", "objects", "proven", "instead"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_cut_that_would_lose_something_is_broken(
    why: str, objects: cut.Objects, proven: dict[str, str], instead: dict[str, int]
) -> None:
    found = cut.cut(objects, ["app.db", "b.db"], proven)
    assert isinstance(found, cut.Broken)
    assert found.instead == instead


def test_what_is_restorable_around_unreadable_objects() -> None:
    objects = [obj(9, 1, 2), *raw(3, 4, 5), obj(1, 3, 4)]
    assert cut.unreadable(objects, 5, frozenset({obj(0, 5, 5).key})) == 4
    assert cut.unreadable(objects, 5, frozenset({obj(1, 3, 4).key})) == 3
    assert cut.unreadable(objects, 5, frozenset({obj(9, 1, 2).key})) == 0


POSITIONS = [
    ("the same", ["7"], {"e"}, Position.EQUAL),
    ("the one before it is listed too", ["6", "7"], {"e"}, Position.EQUAL),
    ("not there yet", [], {"e"}, Position.AHEAD),
    ("only the one before", ["6"], {"e"}, Position.AHEAD),
    ("past ours", ["7", "8"], {"e"}, Position.BEHIND),
    ("past ours, ours compacted away", ["9"], {"e"}, Position.BEHIND),
    ("the same name, other bytes", ["7"], {"other"}, Position.UNCLEAR),
]


@pytest.mark.parametrize(("why", "names", "etags", "expected"), POSITIONS, ids=[row[0] for row in POSITIONS])
def test_a_volume_is_compared_by_the_bucket_s_newest_raw_objects(
    why: str, names: list[str], etags: set[str], expected: Position
) -> None:
    listed = [entry(f"app.db/0000/{int(n):016x}-{int(n):016x}.ltx") for n in names]
    assert position.compare(listed, PREFIX, "app.db", 7, frozenset(etags)) is expected


def test_the_list_of_a_position_starts_just_before_ours() -> None:
    after = position.start_after(PREFIX, "app.db", 7)
    assert after < f"{PREFIX}app.db/0000/{6:016x}-{6:016x}.ltx"
    assert after > f"{PREFIX}app.db/0000/{5:016x}-{5:016x}.ltx"


MOMENTS = [
    ("between two", 25.0, None, (2, 20.0)),
    ("exactly at one", 30.0, None, (3, 30.0)),
    ("after the last", 99.0, None, (4, 40.0)),
    ("before the first", 5.0, None, None),
    ("not past the cut", 99.0, 2, (2, 20.0)),
]


@pytest.mark.parametrize(("why", "at", "cap", "expected"), MOMENTS, ids=[row[0] for row in MOMENTS])
def test_the_transaction_of_a_moment(why: str, at: float, cap: int | None, expected: tuple[int, float] | None) -> None:
    assert travel.choose(raw(1, 2, 3, 4), cap, at, lambda o: o.last * 10.0) == expected


def test_a_moment_behind_a_gap_is_not_chosen() -> None:
    assert travel.choose(raw(1, 2, 4, 5), None, 99.0, lambda o: o.last * 10.0) == (2, 20.0)


def test_the_time_that_objects_carry() -> None:
    assert travel.timestamp("2026-11-21T06:36:37.32Z") == 1795242997.32
    assert travel.timestamp("yesterday") is None


def test_what_a_zombie_uploaded_after_the_cut_is_capped_and_what_a_restore_undid_is_not() -> None:
    def record(epoch: int, parent: int, txid: int, restore: str | None = None) -> Lineage:
        return Lineage(
            nonce="x", tenant="acme", epoch=epoch, parent_epoch=parent, parent_tenant="acme", node="n", session=1,
            cut={"app.db": ltx.hex16(txid)}, reason="failover", at=0.0, restore_id=restore,
        )  # fmt: skip

    history = [record(2, 1, 9), record(3, 2, 5), record(4, 2, 3, restore="r")]
    assert travel.caps(history) == {(1, "app.db"): 9, (2, "app.db"): 5}
