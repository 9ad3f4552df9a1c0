"""What is printed: data for people, for programs and for pipes."""

from __future__ import annotations

import json

import pytest

from fleet.cli import output
from fleet.cli.output import Column

COLUMNS: tuple[Column, ...] = (("TENANT", lambda r: r["tenant"]), ("STATE", lambda r: r["state"]))
ROWS = [{"tenant": "acme", "state": "running"}, {"tenant": "a-much-longer-name", "state": "[bold]released[/bold]"}]


def test_a_table_is_aligned_plain_and_as_wide_as_it_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    long = [{"tenant": "x" * 300, "state": "running"}, *ROWS]
    output.show(long, "table", COLUMNS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TENANT", "STATE"]
    assert lines[1].split() == ["x" * 300, "running"]
    assert lines[3].split() == ["a-much-longer-name", "[bold]released[/bold]"]
    assert len({line.index(word) for line, word in zip(lines, ("STATE", "running", "running"), strict=False)}) == 1
    assert "\x1b" not in "".join(lines)


def test_names_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(ROWS, "name", COLUMNS)
    assert capsys.readouterr().out == "acme\na-much-longer-name\n"


def test_json_is_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(iter(ROWS), "json", COLUMNS)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_talk_is_on_standard_error_and_can_be_silenced(capsys: pytest.CaptureFixture[str]) -> None:
    output.talk("hello")
    output.talk("not said", quiet=True)
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (1023, "1023"), (1024, "1k"), (128 << 20, "128m"), (1 << 30, "1g"), (5 << 40, "5.0t")],
)
def test_sizes_are_shown_as_they_are_typed(value: float | None, shown: str) -> None:
    assert output.size(value) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(1, "1s"), (119, "119s"), (120, "2m"), (7200, "2h"), (604800, "7d")])
def test_spans_are_shown_in_their_largest_unit(seconds: float, shown: str) -> None:
    assert output.span(seconds) == shown


def test_moments_are_rfc_3339_in_utc() -> None:
    assert output.moment(0.0) == "1970-01-01T00:00:00.000Z"
    assert output.moment(1.9996) == "1970-01-01T00:00:02.000Z"
    assert output.moment(None) == "-"
