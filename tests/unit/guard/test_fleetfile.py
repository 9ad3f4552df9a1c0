"""State folder, bucket and node name belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.agent.custody.fleetfile import AnotherFleet, establish, recall, share
from node.bucket import cas, keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Fleet
from tests.testbed.faults import Fault, FaultyStore


def test_the_first_machine_founds_the_fleet_and_remembers_it(tmp_path: Path) -> None:
    store = MemoryStore()
    held, known = establish(store, tmp_path, "n1", "solo")
    assert held.record.mode == "solo"
    assert (known.id, known.node) == (held.record.id, "n1")
    assert recall(tmp_path) == known


def test_a_later_start_finds_the_same(tmp_path: Path) -> None:
    store = MemoryStore()
    first = establish(store, tmp_path, "n1", "solo")
    assert establish(store, tmp_path, "n1", "shared") == first


def test_the_second_machine_joins_with_an_id_of_its_own(tmp_path: Path) -> None:
    store = MemoryStore()
    _, one = establish(store, tmp_path / "a", "n1", "shared")
    _, two = establish(store, tmp_path / "b", "n2", "solo")
    assert one.id == two.id
    assert one.machine != two.machine


def test_of_two_that_found_at_once_one_wins(tmp_path: Path) -> None:
    store = MemoryStore()
    other = Fleet(nonce="x", id="other", mode="shared")

    class Late(MemoryStore):
        def create(self, key: str, body: bytes) -> str:
            store.put(key, other.encode())
            return store.create(key, body)

        def get(self, key: str):
            return store.get(key)

    held, known = establish(Late(), tmp_path, "n1", "solo")
    assert held.record.id == known.id == "other"


def test_a_lost_answer_while_founding_is_repeated(tmp_path: Path) -> None:
    store = MemoryStore()
    held, _ = establish(FaultyStore.scripted(store, Fault.NONE, Fault.APPLIED), tmp_path, "n1", "solo")
    found = cas.read(store, keys.FLEET, Fleet)
    assert found is not None
    assert found.record.id == held.record.id


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": "x"}'])
def test_a_damaged_memory_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "fleet.json").write_text(content)
    with pytest.raises(AnotherFleet, match="damaged"):
        establish(MemoryStore(), tmp_path, "n1", "solo")


def test_another_fleets_bucket_is_refused(tmp_path: Path) -> None:
    establish(MemoryStore(), tmp_path, "n1", "solo")
    other = MemoryStore()
    establish(other, tmp_path / "other", "n1", "solo")
    with pytest.raises(AnotherFleet, match="FLEET_BUCKET"):
        establish(other, tmp_path, "n1", "solo")


def test_an_empty_bucket_is_not_founded_anew_by_a_machine_that_has_served(tmp_path: Path) -> None:
    establish(MemoryStore(), tmp_path, "n1", "solo")
    empty = MemoryStore()
    with pytest.raises(AnotherFleet, match=r"no fleet\.json"):
        establish(empty, tmp_path, "n1", "solo")
    assert list(empty.list("")) == []


def test_a_renamed_node_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    establish(store, tmp_path, "n1", "solo")
    with pytest.raises(AnotherFleet, match="FLEET_NODE=n1"):
        establish(store, tmp_path, "n2", "solo")


def test_sharing_is_written_once(tmp_path: Path) -> None:
    store = MemoryStore()
    held, _ = establish(store, tmp_path, "n1", "solo")
    assert share(store, held).mode == "shared"
    again, _ = establish(store, tmp_path, "n1", "solo")
    assert share(store, again) == again.record
