from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node.agent.ports import RuntimeFailed
from node.agent.runtime.uids import FIRST, Uids, allot


def test_the_first_tenant_gets_the_first_uid_and_the_next_the_next() -> None:
    known = allot(allot({}, "a"), "b")
    assert known == {"a": FIRST, "b": FIRST + 1}


def test_a_known_tenant_keeps_its_uid_and_changes_nothing() -> None:
    known = {"a": FIRST + 5}
    assert allot(known, "a") is known


def test_a_uid_is_never_given_twice_though_lower_ones_are_free() -> None:
    assert allot({"z": FIRST + 9}, "a")["a"] == FIRST + 10


def test_the_registry_outlives_the_process(tmp_path: Path) -> None:
    first = [Uids(tmp_path).of(t) for t in ("a", "b", "c")]
    assert [Uids(tmp_path).of(t) for t in ("a", "b", "c")] == first
    assert (tmp_path / "uids.json").stat().st_mode & 0o777 == 0o600


def test_many_at_once_get_one_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        uids = list(pool.map(lambda n: Uids(tmp_path).of(f"t{n % 20}"), range(60)))
    assert uids[:20] == uids[20:40] == uids[40:]
    assert len(set(uids)) == 20


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 0}', '{"a": 200000, "b": 200000}'])
def test_a_damaged_registry_gives_out_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "uids.json").write_text(text)
    with pytest.raises(RuntimeFailed, match="rebuild it") as raised:
        Uids(tmp_path).of("c")
    assert raised.value.reason == "bad_state"
    assert (tmp_path / "uids.json").read_text() == text
