"""From flags, or a spec file, to the spec that is sent."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from fleet.cli import change
from fleet.cli.change import Flags
from fleet.cli.errors import USAGE, CliError

STORED = {
    "app": "a" * 64,
    "image": None,
    "databases": ["workflow.db", "docs.db"],
    "port": 8080,
    "limits": {"memory": 128 << 20, "cpus": 0.5, "disk": 1 << 30, "pids": 128},
    "env": {"A": "1", "B": "2"},
    "labels": {"team": "x"},
    "access": "open",
}


def test_no_flag_keeps_the_stored_spec() -> None:
    assert change.merge(STORED, Flags(), None) == STORED
    assert not Flags().given()


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (Flags(port=9000), {"port": 9000}),
        (Flags(rpo="0"), {"rpo": "0"}),
        (Flags(health="/ok"), {"health": "/ok"}),
        (Flags(user=2000), {"user": 2000}),
        (Flags(egress="on"), {"egress": "on"}),
        (Flags(access="token"), {"access": "token"}),
        (Flags(retention="1d"), {"retention": "1d"}),
        (Flags(node="one"), {"node": "one"}),
        (Flags(writable=("/a", "/b")), {"writable": ["/a", "/b"]}),
        (Flags(memory="1g"), {"limits": STORED["limits"] | {"memory": "1g"}}),  # type: ignore[operator] # a dict
        (Flags(cpus=2.0, disk="2g"), {"limits": STORED["limits"] | {"cpus": 2.0, "disk": "2g"}}),  # type: ignore[operator] # a dict
        (Flags(env=("B=3", "C=4")), {"env": {"A": "1", "B": "3", "C": "4"}}),
        (Flags(env=("A=",)), {"env": {"B": "2"}}),
        (Flags(label=("team=", "tier=gold")), {"labels": {"tier": "gold"}}),
    ],
)
def test_a_flag_changes_its_part_and_nothing_else(flags: Flags, changed: dict[str, object]) -> None:
    before = {**STORED}
    assert flags.given()
    assert change.merge(STORED, flags, None) == {**STORED, **changed}
    assert before == STORED, "what is stored is not touched"


def test_an_app_takes_the_place_of_an_image_and_the_other_way_round() -> None:
    foreign = change.merge(STORED, Flags(image="mine:1"), None)
    assert (foreign["image"], foreign["app"]) == ("mine:1", None)
    ours = change.merge(foreign, Flags(), "b" * 64)
    assert (ours["image"], ours["app"]) == (None, "b" * 64)


def test_our_workers_log_is_always_among_the_databases() -> None:
    assert change.merge(None, Flags(db=("docs.db",)), "b" * 64)["databases"] == ["workflow.db", "docs.db"]
    assert change.merge(None, Flags(), "b" * 64)["databases"] == ["workflow.db"]
    assert change.merge(None, Flags(db=("x.db", "workflow.db")), "b" * 64)["databases"] == ["x.db", "workflow.db"]
    assert change.merge(None, Flags(image="i", db=("x.db",)), None)["databases"] == ["x.db"]


def test_a_spec_file_is_yaml_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("image: x\ndatabases: [a.db]\nlimits: {memory: 64m}\n")
    assert change.read_spec(str(path)) == {"image": "x", "databases": ["a.db"], "limits": {"memory": "64m"}}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"image": "y", "databases": ["b.db"]}'))
    assert change.read_spec("-") == {"image": "y", "databases": ["b.db"]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"- a\n", "a mapping"),
        (b"", "a mapping"),
        (b"1: a\n", "a mapping"),
        (b"a: [\n", "not YAML"),
        (b"\xff\xfe", "not text"),
        (b"env:\n  SINCE: 2026-11-21\n", "env.SINCE"),
        (b"limits:\n  - cpus: .nan\n", "limits.0.cpus"),
        (b"env:\n  1: a\n", "env.1"),
    ],
)
def test_a_file_that_is_no_spec_is_named_and_so_is_what_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(CliError) as e:
        change.read_spec(str(path))
    assert e.value.code == USAGE
    assert str(path) in str(e.value)
    assert says in str(e.value)


def test_a_spec_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"cannot read .*nowhere\.yaml"):
        change.read_spec(str(tmp_path / "nowhere.yaml"))


def test_a_secret_comes_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("other"))
    assert change.secret_values((f"a=@{tmp_path}/key", "b=@-")) == {"a": "s3cret\n", "b": "other"}


def test_a_secret_on_the_command_line_is_refused_and_not_repeated() -> None:
    with pytest.raises(CliError) as e:
        change.secret_values(("key=hunter2",))
    assert e.value.code == USAGE
    assert "hunter2" not in str(e.value)
