"""What a user may ask for: sizes, durations and everything that must fit together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from node.bucket.spec import TenantSpec, parse_duration, parse_size

APP = "a" * 64


def spec(**fields: Any) -> TenantSpec:
    return TenantSpec.model_validate({"app": APP, "databases": ["app.db"], **fields})


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1", 1),
        ("1b", 1),
        ("128m", 128 << 20),
        ("128M", 128 << 20),
        ("1g", 1 << 30),
        ("1 GiB", 1 << 30),
        ("2t", 2 << 40),
        ("64k", 64 << 10),
        (" 7k ", 7 << 10),
        (512, 512),
    ],
)
def test_sizes(text: object, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "m", "-1", "1.5g", "1x", "1 2", "0x10", None, True, 1.5, [], "1e3"])
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="128m"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1s", 1.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("12h", 43200.0),
        ("7d", 604800.0),
        ("1.5h", 5400.0),
        (3, 3.0),
        (0.5, 0.5),
        (" 1S ", 1.0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5", "-1s", "1w", "1h30m", None, True, [], "infs", "nan"])
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="5m"):
        parse_duration(text)


def test_the_least_spec_has_the_stated_defaults() -> None:
    least = spec()
    assert (least.port, least.health, least.rpo, least.retention) == (8080, "/healthz", 1.0, 7 * 86400.0)
    assert (least.limits.memory, least.limits.cpus, least.limits.disk) == (128 << 20, 0.5, 1 << 30)
    assert least.egress == "off"


def test_a_spec_is_read_back_as_it_was_written() -> None:
    full = spec(
        databases=["app.db", "a/b.db"],
        limits={"memory": "256m", "cpus": 1.5, "disk": "2g", "pids": 64},
        rpo="0",
        env={"A": "b"},
        secrets={"KEY": {"version": 2}},
        labels={"team/x": "y"},
        writable=["/var/cache/x"],
    )
    assert TenantSpec.model_validate_json(full.model_dump_json()) == full
    assert json.loads(full.model_dump_json())["limits"]["memory"] == 256 << 20


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"colour": 1}, "colour"),
        ({"limits": {"ram": 1}}, "limits.ram"),
        ({"limits": {"memory": "lots"}}, "limits.memory"),
        ({"limits": {"memory": "1k"}}, "limits.memory"),
        ({"limits": {"cpus": 0}}, "limits.cpus"),
        ({"limits": []}, "limits"),
        ({"port": 80}, "port"),
        ({"port": "x"}, "port"),
        ({"port": 70000}, "port"),
        ({"health": "healthz"}, "health"),
        ({"health": "/a b"}, "health"),
        ({"rpo": "soon"}, "rpo"),
        ({"retention": "1m"}, "retention"),
        ({"user": 0}, "user"),
        ({"app": "../x"}, "app"),
        ({"env": {"1A": "x"}}, "env"),
        ({"env": {"A": 1}}, "env.A"),
        ({"secrets": {"K": {"version": 0}}}, "secrets.K.version"),
        ({"labels": {"Ä": "x"}}, "labels"),
        ({"egress": "maybe"}, "egress"),
        ({"databases": ["/etc/passwd"]}, "databases.0"),
        ({"databases": ["a.db", "../b.db"]}, "databases.1"),
        ({"databases": ["a.db-wal"]}, "databases.0"),
        ({"databases": [".hidden"]}, "databases.0"),
        ({"databases": "a.db"}, "databases"),
        ({"writable": ["/a/../b"]}, "writable.0"),
        ({"writable": ["relative"]}, "writable.0"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == where


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image": "x"}, "exactly one"),
        ({"app": None}, "exactly one"),
        ({"databases": []}, "at least one"),
        ({"databases": ["a.db", "a.db"]}, "twice"),
        ({"app": None, "image": "x", "rpo": 0}, "calls_durable"),
        ({"rpo": "500ms"}, "1s and more"),
        ({"secrets": {"../x": {"version": 1}}}, "secrets"),
        ({"node": "Not A Name"}, "node"),
        ({"command": ["x"]}, "only with image"),
    ],
)
def test_what_does_not_fit_together_says_why(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        spec(**fields)


def test_a_foreign_image_that_calls_durable_may_lose_nothing() -> None:
    assert spec(app=None, image="x", rpo=0, calls_durable=True).rpo == 0
