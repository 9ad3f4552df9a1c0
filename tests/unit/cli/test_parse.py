"""What is typed: durations, moments, pairs."""

from __future__ import annotations

import pytest

from fleet.cli import parse
from fleet.cli.errors import USAGE, CliError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("5m", 300.0), ("12h", 43200.0), ("7d", 604800.0), ("250ms", 0.25), ("0s", 0.0), (" 2s ", 2.0)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1w", "1s5m", "1 s", "soon", "1e3s"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(CliError, match="1s, 5m, 12h or 7d") as e:
        parse.duration(text)
    assert e.value.code == USAGE


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:01:40Z", 100.0),
        ("1970-01-01T01:01:40+01:00", 100.0),
        ("1970-01-01T00:01:40.250+00:00", 100.25),
        ("5m", 700.0),
    ],
)
def test_a_moment_has_a_zone_or_is_so_long_ago(text: str, at: float) -> None:
    assert parse.moment(text, now=1000.0) == at


@pytest.mark.parametrize("text", ["yesterday", "2026-11-21T06:00:00", "2026-11-21", "12:00", ""])
def test_a_moment_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="is not a time") as e:
        parse.moment(text, now=1000.0)
    assert e.value.code == USAGE


def test_a_pair_is_split_at_its_first_equals_sign() -> None:
    assert parse.pair("KEY=a=b", "--env") == ("KEY", "a=b")
    assert parse.pair("KEY=", "--env") == ("KEY", "")


@pytest.mark.parametrize("text", ["KEY", "=value", ""])
def test_what_is_no_pair_is_refused_with_its_option(text: str) -> None:
    with pytest.raises(CliError, match="--env"):
        parse.pair(text, "--env")
