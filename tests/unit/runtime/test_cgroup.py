from __future__ import annotations

from pathlib import Path

import pytest

from node.agent.ports import Freezer, RuntimeFailed
from node.agent.runtime import cgroup, groups
from node.agent.runtime.cgroup import Cgroups

ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("found", "parent", "freezer", "container"),
    [
        (
            Cgroups("cgroupfs", 1),
            "/fleet-ab12",
            Freezer(
                ROOT / "freezer/fleet-ab12", ROOT / "freezer/fleet-ab12/freezer.state", b"FROZEN", b"THAWED", False
            ),
            ROOT / "freezer/fleet-ab12/c0ffee",
        ),
        (
            Cgroups("cgroupfs", 2),
            "/fleet-ab12",
            Freezer(ROOT / "fleet-ab12", ROOT / "fleet-ab12/cgroup.freeze", b"1", b"0", True),
            ROOT / "fleet-ab12/c0ffee",
        ),
        (
            Cgroups("systemd", 1),
            "fleet_ab12.slice",
            Freezer(
                ROOT / "freezer/fleet_ab12.slice",
                ROOT / "freezer/fleet_ab12.slice/freezer.state",
                b"FROZEN",
                b"THAWED",
                False,
            ),
            ROOT / "freezer/fleet_ab12.slice/docker-c0ffee.scope",
        ),
        (
            Cgroups("systemd", 2),
            "fleet_ab12.slice",
            Freezer(ROOT / "fleet_ab12.slice", ROOT / "fleet_ab12.slice/cgroup.freeze", b"1", b"0", True),
            ROOT / "fleet_ab12.slice/docker-c0ffee.scope",
        ),
    ],
)
def test_the_parent_and_its_freezer_follow_the_engines_driver_and_version(
    found: Cgroups, parent: str, freezer: Freezer, container: Path
) -> None:
    assert cgroup.parent(found, "fleet-ab12") == parent
    assert cgroup.freezer(found, "fleet-ab12") == freezer
    assert cgroup.container_group(found, freezer, "c0ffee") == container


@pytest.mark.parametrize(
    ("found", "file", "text"),
    [
        (Cgroups("cgroupfs", 1), "cpu/fleet-ab12/c0ffee/cpu.cfs_quota_us", b"50000"),
        (Cgroups("cgroupfs", 2), "fleet-ab12/c0ffee/cpu.max", b"50000 100000"),
        (Cgroups("systemd", 1), "cpu/fleet_ab12.slice/docker-c0ffee.scope/cpu.cfs_quota_us", b"50000"),
        (Cgroups("systemd", 2), "fleet_ab12.slice/docker-c0ffee.scope/cpu.max", b"50000 100000"),
    ],
)
def test_what_a_container_may_compute_is_in_a_file_of_its_own_group(found: Cgroups, file: str, text: bytes) -> None:
    assert cgroup.quota(found, "fleet-ab12", "c0ffee", 0.5, ROOT) == (ROOT / file, text)


def test_a_container_that_is_gone_needs_no_bound_and_one_that_cannot_be_bounded_is_said(tmp_path: Path) -> None:
    groups.allow(tmp_path / "gone" / "cpu.max", b"1 1")
    odd = tmp_path / "cpu.max"
    odd.mkdir()
    with pytest.raises(RuntimeFailed, match=r"cpu\.max"):
        groups.allow(odd, b"1 1")


def test_a_slice_is_one_level_deep_whatever_the_fleet_is_called() -> None:
    assert cgroup.parent(Cgroups("systemd", 2), "a-b-c").removesuffix(".slice").count("-") == 0


@pytest.mark.parametrize("text", [b"FROZEN\n", b"FREEZING\n"])
def test_a_freeze_that_is_not_reached_yet_counts_as_frozen(tmp_path: Path, text: bytes) -> None:
    freezer = cgroup.freezer(Cgroups("cgroupfs", 1), "fleet", tmp_path)
    freezer.group.mkdir(parents=True)
    freezer.file.write_bytes(text)
    assert groups.is_frozen(freezer)


@pytest.mark.parametrize("version", [1, 2])
def test_a_thawed_group_and_one_that_is_not_there_are_not_frozen(tmp_path: Path, version: int) -> None:
    freezer = cgroup.freezer(Cgroups("cgroupfs", version), "fleet", tmp_path)
    assert not groups.is_frozen(freezer)
    freezer.group.mkdir(parents=True)
    freezer.file.write_bytes(freezer.thaw + b"\n")
    assert not groups.is_frozen(freezer)
    freezer.file.write_bytes(freezer.freeze + b"\n")
    assert groups.is_frozen(freezer)
