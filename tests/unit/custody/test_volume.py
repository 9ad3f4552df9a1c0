"""A volume at rest: what it says of itself, and no link followed on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from node.agent.custody import marker, volume
from node.agent.custody.marker import Marker
from node.agent.ports import Volume

MARKER = Marker("acme", "n1", 0, 3, "boot-a", "restored")


@pytest.fixture
def vol(tmp_path: Path) -> Volume:
    found = Volume(tmp_path / "data", tmp_path / "meta", tmp_path / "run", tmp_path / "marker")
    for folder in (found.data, found.meta, found.run):
        folder.mkdir()
    return found


def raw(vol: Volume, db: str, *txids: int) -> None:
    folder = volume.raw_folder(vol, db)
    folder.mkdir(parents=True, exist_ok=True)
    for txid in txids:
        volume.raw_file(vol, db, txid).write_bytes(b"x" * txid)


def test_a_volume_s_position_is_its_newest_raw_transaction(vol: Volume) -> None:
    raw(vol, "app.db", 1, 2, 16)
    (volume.raw_folder(vol, "app.db") / "0000000000000020-0000000000000020.ltx.tmp").touch()
    raw(vol, "sub/b.db", 3)
    assert volume.local_positions(vol, ["app.db", "sub/b.db", "none.db"]) == {"app.db": 16, "sub/b.db": 3}


def test_links_of_a_tenant_are_not_followed(vol: Volume, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "app.db").write_text("root's own")
    (vol.data / "app.db").symlink_to(secret / "app.db")
    (vol.data / "sub").symlink_to(secret)
    (vol.data / "real.db").write_text("x")
    (vol.data / "empty.db").touch()
    assert volume.existing(vol, ["app.db", "sub/app.db", "real.db", "empty.db", "none.db"]) == ("real.db",)
    volume.flush(vol, ["real.db", "none.db"])
    with pytest.raises(OSError, match="symbolic"):
        volume.flush(vol, ["app.db"])


def test_the_etags_that_a_store_may_give(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert hashlib.md5(b"abc", usedforsecurity=False).hexdigest() in volume.etags(path)
    path.write_bytes(b"a" * (6 << 20))
    assert any(e.endswith("-2") for e in volume.etags(path))


def test_a_marker_names_its_epoch_only_once_it_is_confirmed(vol: Volume) -> None:
    assert marker.read(vol.marker) is None
    assert volume.facts(vol, ["app.db"]) is None
    marker.write(vol.marker, MARKER)
    facts = volume.facts(vol, ["app.db"])
    assert facts
    assert facts.epoch == 0
    marker.write(vol.marker, MARKER.confirmed())
    facts = volume.facts(vol, ["app.db"])
    assert facts
    assert facts.epoch == 3


DISPOSABLE = [
    ("only ever restored", MARKER, True),
    ("a worker wrote before anything was confirmed", Marker("acme", "n1", 0, 3, "b", "born"), False),
    ("confirmed once, and it ran since", MARKER.confirmed(), False),
    ("released", MARKER.confirmed().at_rest({"app.db": "0" * 16}), True),
    ("released, and it ran again", MARKER.confirmed().at_rest({}).running("boot-b"), False),
]


@pytest.mark.parametrize(("why", "found", "expected"), DISPOSABLE, ids=[row[0] for row in DISPOSABLE])
def test_a_volume_is_deleted_only_if_all_of_it_is_in_the_bucket(why: str, found: Marker, expected: bool) -> None:
    assert found.disposable is expected


def test_a_marker_that_cannot_be_read_says_nothing(vol: Volume) -> None:
    marker.write(vol.marker, MARKER)
    for file in vol.marker.iterdir():
        file.write_text("{broken")
    assert marker.read(vol.marker) is None


def test_a_volume_that_cannot_be_read_is_not_taken_for_an_empty_one(vol: Volume) -> None:
    assert volume.is_empty(vol)
    vol.data.rmdir()
    assert volume.is_empty(vol)
    vol.data.write_text("no folder")
    assert not volume.is_empty(vol)
