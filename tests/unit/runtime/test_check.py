from __future__ import annotations

from typing import Any

import pytest

from node.agent.ports import RuntimeFailed
from node.agent.runtime import check

GOOD: dict[str, Any] = {
    "ServerVersion": "20.10.24+dfsg1",
    "Driver": "overlay2",
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
}


@pytest.mark.parametrize(
    ("reason", "fix"),
    [("no_engine", "apt-get install docker.io"), ("denied", "group docker"), ("engine_slow", "restart the engine")],
)
def test_an_engine_that_can_not_be_used_is_found_with_its_fix(reason: str, fix: str) -> None:
    found = check.engine_failed(RuntimeFailed("ask the engine", reason=reason, retryable=True))
    assert (found.name, found.ok) == ("engine", False)
    assert fix in found.fix


def test_a_good_engine_has_nothing_to_fix() -> None:
    for found in (check.engine_found(GOOD), check.cgroups_found(GOOD)):
        assert found.ok
        assert not found.fix


@pytest.mark.parametrize(
    "change", [{"ServerVersion": "19.03.1"}, {"MemoryLimit": False}, {"PidsLimit": False}, {"CpuCfsQuota": False}]
)
def test_an_engine_that_is_too_old_or_can_not_limit_is_found(change: dict[str, Any]) -> None:
    found = check.engine_found(GOOD | change)
    assert not found.ok
    assert found.fix


def test_an_engine_without_cgroups_is_found() -> None:
    assert not check.cgroups_found(GOOD | {"CgroupDriver": "none"}).ok


def test_a_missing_image_is_named_with_the_command_that_makes_it() -> None:
    found = check.images_found("acme", ["sidecar"])
    assert not found.ok
    assert "acme/sidecar" in found.detail
    assert found.fix == "images/build --prefix acme"


def test_missing_support_for_allowances_is_found() -> None:
    assert check.quotas("").ok
    found = check.quotas("this kernel has no loop devices")
    assert not found.ok
    assert "no loop devices" in found.detail


@pytest.mark.parametrize(
    ("free", "total", "ok"),
    [(500 << 20, 100 << 30, False), (2 << 30, 100 << 30, True), (500 << 20, 2 << 30, True), (1 << 20, 2 << 30, False)],
)
def test_a_full_disk_is_found(free: int, total: int, ok: bool) -> None:
    assert check.disk_found("/var/lib/fleet", free, total).ok is ok
