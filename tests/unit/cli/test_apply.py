"""What `up` says that it changed."""

from __future__ import annotations

import pytest

from fleet.cli.apply import _asked, _lines


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("limits.memory", True),
        ("limits.disk", False),
        ("labels.team.name", True),
        ("secrets.key.version", True),
        ("rpo", True),
        ("port", False),
        ("env.A", False),
    ],
)
def test_of_a_new_tenant_only_what_was_asked_for_is_news(path, asked):
    wanted = {
        "limits": {"memory": "1g"}, "labels": {"team.name": "a"}, "secrets": {"key": {"version": 1}}, "rpo": 0,
    }  # fmt: skip
    assert _asked(path, wanted) is asked


def test_sizes_are_shown_as_they_are_written():
    lines = _lines([
        {"path": "limits.memory", "old": 1 << 30, "new": 1536 << 20}, {"path": "limits.pids", "old": None, "new": 128},
        {"path": "image", "old": "a:1", "new": None},
    ])  # fmt: skip
    assert lines == ["limits.memory: 1g → 1536m", "limits.pids: - → 128", 'image: "a:1" → -']
