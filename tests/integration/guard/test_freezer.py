"""Freeze, thaw and kill on each cgroup version that this kernel offers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.agent.custody import freezer
from node.agent.ports import Freezer
from tests.integration.guard.conftest import Tenant
from tests.testbed.process import wait_until

ROOT = Path("/sys/fs/cgroup")


def _v2_root() -> Path | None:
    """The unified hierarchy: alone, or beside version 1."""
    return next((p for p in (ROOT, ROOT / "unified") if (p / "cgroup.controllers").exists()), None)


@pytest.fixture(params=["v1", "v2"])
def cage(request: pytest.FixtureRequest) -> Iterator[Freezer]:
    if os.geteuid() != 0:
        pytest.skip("freezing processes needs root")
    name = f"fleet-freezer-test-{secrets.token_hex(4)}"
    if request.param == "v1":
        if not (ROOT / "freezer").is_dir():
            # Not a gap of the tests: such a machine has no version 1 to freeze with.
            pytest.xfail("this kernel mounts no version 1 freezer")
        group = ROOT / "freezer" / name
        cage = Freezer(group, group / "freezer.state", b"FROZEN", b"THAWED", v2=False)
    else:
        root = _v2_root()
        if root is None:
            pytest.xfail("this kernel mounts no version 2 hierarchy")
        group = root / name
        cage = Freezer(group, group / "cgroup.freeze", b"1", b"0", v2=True)
    yield cage
    freezer.kill(cage)
    freezer.thaw(cage)
    for path in sorted((p for p in cage.group.rglob("*") if p.is_dir()), reverse=True):
        path.rmdir()
    cage.group.rmdir()


def test_it_stands_still_and_goes_on(cage: Freezer, tmp_path: Path) -> None:
    tenant = Tenant(cage, tmp_path)
    wait_until(tenant.counts, "counting")
    wait_until(lambda: freezer.freeze(cage), "freezing")
    assert freezer.is_frozen(cage)
    assert not tenant.counts()
    wait_until(lambda: freezer.thaw(cage), "thawing")
    assert not freezer.is_frozen(cage)
    wait_until(tenant.counts, "counting again")
    tenant.end()


def test_an_empty_group_can_be_frozen_before_anything_is_in_it(cage: Freezer, tmp_path: Path) -> None:
    wait_until(lambda: freezer.freeze(cage), "freezing")
    tenant = Tenant(cage, tmp_path)
    wait_until(lambda: tenant.process.pid in freezer.processes(cage), "its birth")
    assert not tenant.counts()
    tenant.end()


def test_what_is_killed_while_frozen_dies_without_another_step(cage: Freezer, tmp_path: Path) -> None:
    tenant = Tenant(cage, tmp_path)
    wait_until(tenant.counts, "counting")
    wait_until(lambda: freezer.freeze(cage), "freezing")
    count = tenant.count()
    assert freezer.kill(cage)
    assert freezer.processes(cage) == []
    wait_until(tenant.dead, "its death")
    assert tenant.count() == count
    assert freezer.is_frozen(cage)
    assert not cage.group.with_name(cage.group.name + "-dying").exists()


def test_a_group_that_does_not_exist_is_made(cage: Freezer) -> None:
    assert not freezer.is_frozen(cage)
    assert freezer.processes(cage) == []
    assert freezer.freeze(cage)
    assert freezer.kill(cage)
    assert freezer.is_frozen(cage)
