"""Volumes on a real disk: owners and bounds, crashes between steps, and links that a tenant plants."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.agent.ports import RuntimeFailed
from node.agent.runtime import quota, volumes
from node.agent.runtime.volumes import IMAGE, DiskVolumes

UID = 200_123
MIB = 1 << 20

pytestmark = pytest.mark.skipif(bool(quota.supported()), reason=quota.supported() or "allowances can be kept")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    for found in sorted((tmp_path / "state" / "t").glob("*/data")):
        quota.detach(found)


def modes(state: Path, tenant: str) -> dict[str, tuple[int, int, int]]:
    """Owner, group and mode of each folder."""
    home = state / "t" / tenant
    found = {p.name: p.stat() for p in (home, home / "data", home / "meta", home / "run", home / "marker")}
    return {name: (s.st_uid, s.st_gid, s.st_mode & 0o7777) for name, s in found.items()}


RIGHT = {
    "acme": (0, 0, 0o700),
    "data": (UID, UID, 0o700),
    "meta": (UID, UID, 0o700),
    "run": (0, 0, 0o755),
    "marker": (0, 0, 0o700),
}


def test_a_fresh_volume_is_empty_and_each_folder_has_its_owner(state: Path) -> None:
    made = DiskVolumes(state)
    assert made.find("acme") is None
    assert made.tenants() == []
    volume = made.ensure("acme", UID, 64 * MIB)
    assert not [p for folder in (volume.data, volume.meta, volume.run, volume.marker) for p in folder.iterdir()]
    assert modes(state, "acme") == RIGHT
    assert made.tenants() == ["acme"]
    assert made.find("acme") == volume


def test_ensuring_again_keeps_the_data_and_mends_owners_and_modes(state: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 64 * MIB)
    (volume.data / "app.db").write_bytes(b"precious")
    volume.data.chmod(0o777)
    os.chown(volume.meta, 1, 1)
    volume.run.chmod(0o777)
    assert made.ensure("acme", UID, 64 * MIB) == volume
    assert modes(state, "acme") == RIGHT
    assert (volume.data / "app.db").read_bytes() == b"precious"


def test_the_allowance_is_there_in_full_and_not_much_more(state: Path) -> None:
    for allowance in (16 * MIB, 128 * MIB):
        volume = DiskVolumes(state).ensure(f"t{allowance}", UID, allowance)
        room = os.statvfs(volume.data)
        assert allowance <= room.f_bavail * room.f_frsize <= allowance + 16 * MIB


def test_the_host_keeps_only_what_a_tenant_really_uses(state: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 1 << 30)
    empty = made.used_bytes("acme")
    assert (state / "t" / "acme" / IMAGE).stat().st_blocks * 512 < 16 * MIB
    (volume.data / "x").write_bytes(os.urandom(5 * MIB))
    assert 5 * MIB <= made.used_bytes("acme") - empty < 6 * MIB


def test_a_larger_allowance_grows_the_volume_and_a_smaller_one_waits(state: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 32 * MIB)
    (volume.data / "app.db").write_bytes(b"precious")
    made.ensure("acme", UID, 256 * MIB)
    room = os.statvfs(volume.data)
    assert room.f_bavail * room.f_frsize >= 240 * MIB
    made.ensure("acme", UID, 32 * MIB)
    assert (volume.data / "app.db").read_bytes() == b"precious"


def test_after_a_reboot_the_volume_is_mounted_again_and_never_taken_for_an_empty_one(state: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 64 * MIB)
    (volume.data / "app.db").write_bytes(b"precious")
    quota.detach(volume.data)
    assert volume.data.stat().st_mode & 0o7777 == 0  # nobody writes beside the volume
    found = DiskVolumes(state).find("acme")
    assert found == volume
    assert (volume.data / "app.db").read_bytes() == b"precious"


def test_a_volume_that_cannot_be_read_is_damaged_and_not_empty(state: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 64 * MIB)
    quota.detach(volume.data)
    (state / "t" / "acme" / IMAGE).write_bytes(b"garbage")
    for call in (lambda: made.find("acme"), lambda: made.ensure("acme", UID, 64 * MIB)):
        with pytest.raises(RuntimeFailed) as raised:
            call()
        assert raised.value.reason == "volume_damaged"
    aside = made.set_aside("acme", "damaged")
    assert (aside / IMAGE).read_bytes() == b"garbage"
    assert made.find("acme") is None


@pytest.mark.parametrize("step", ["make", "rename"])
def test_a_crash_while_a_volume_is_made_leaves_none_and_the_next_try_makes_it(
    state: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crashed(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crashed

    made = DiskVolumes(state)
    with monkeypatch.context() as patched, pytest.raises(Crashed):
        if step == "make":
            patched.setattr(volumes.quota, "make", crash)
        else:
            patched.setattr(Path, "rename", crash)
        made.ensure("acme", UID, 64 * MIB)
    assert made.find("acme") is None
    assert made.tenants() == []
    made.ensure("acme", UID, 64 * MIB)
    assert modes(state, "acme") == RIGHT


def test_what_is_set_aside_is_kept_whole_and_a_fresh_one_takes_its_place(state: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 64 * MIB)
    (volume.data / "app.db").write_bytes(b"precious")
    (volume.marker / "marker.json").write_text("{}")
    first = made.set_aside("acme", "e00000001")
    assert first == state / "aside" / "acme-e00000001-1"
    assert made.find("acme") is None
    fresh = made.ensure("acme", UID, 64 * MIB)
    assert not list(fresh.data.iterdir())
    assert made.set_aside("acme", "e00000001") == state / "aside" / "acme-e00000001-2"
    assert (first / "marker" / "marker.json").read_text() == "{}"
    subprocess.run(["mount", "-o", "loop,ro", first / IMAGE, first / "data"], check=True)
    try:
        assert (first / "data" / "app.db").read_bytes() == b"precious"
    finally:
        subprocess.run(["umount", first / "data"], check=True)


def test_discarding_deletes_all_of_it_and_may_be_repeated_after_a_crash(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DiskVolumes(state)
    made.ensure("acme", UID, 64 * MIB)

    def crash(*_: object) -> None:
        raise OSError(5, "crash")

    with monkeypatch.context() as patched, pytest.raises(RuntimeFailed):
        patched.setattr(shutil, "rmtree", crash)
        made.discard("acme")
    assert made.find("acme") is None
    assert made.tenants() == []
    made.discard("acme")
    made.discard("acme")
    assert list((state / "t").iterdir()) == []


def test_links_that_a_tenant_plants_are_never_followed(state: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "keep").write_text("keep")
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 64 * MIB)
    (volume.data / "lost+found").symlink_to(victim)
    (volume.meta / "escape").symlink_to(victim)
    quota.detach(volume.data)
    made.ensure("acme", UID, 64 * MIB)
    made.discard("acme")
    assert (victim / "keep").read_text() == "keep"
    assert victim.stat().st_uid == os.geteuid()


def test_a_folder_that_became_a_link_is_refused(state: Path, tmp_path: Path) -> None:
    made = DiskVolumes(state)
    volume = made.ensure("acme", UID, 64 * MIB)
    volume.run.rmdir()
    volume.run.symlink_to(tmp_path)
    with pytest.raises(RuntimeFailed):
        made.ensure("acme", UID, 64 * MIB)
    assert tmp_path.stat().st_uid == os.geteuid()


def test_a_volume_that_a_full_disk_has_stopped_comes_back(state: Path, tmp_path: Path) -> None:
    """The state folder's own disk runs full under a tenant that is within its allowance."""
    disk = tmp_path / "disk"
    quota.make(tmp_path / "disk.ext4", 300 * MIB)
    disk.mkdir()
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk.ext4", disk], check=True)
    try:
        made = DiskVolumes(disk)
        volume = made.ensure("acme", UID, 200 * MIB)
        (volume.data / "app.db").write_bytes(b"precious")
        os.sync()
        (disk / "filler").write_bytes(bytes(270 * MIB))
        with pytest.raises(OSError, match=r"."), (volume.data / "more").open("wb") as file:
            file.write(os.urandom(100 * MIB))
            file.flush()
            os.fsync(file.fileno())
        with pytest.raises(RuntimeFailed) as raised:
            made.ensure("beta", UID, 16 * MIB)
        assert raised.value.reason == "disk_full"
        (disk / "filler").unlink()
        assert made.ensure("acme", UID, 200 * MIB) == volume
        assert (volume.data / "app.db").read_bytes() == b"precious"
        (volume.data / "after").write_bytes(b"writable")
    finally:
        DiskVolumes(disk).detach()
        subprocess.run(["umount", "--lazy", disk], check=False)


def test_what_was_set_aside_is_found_with_its_time_and_size_and_can_go(state: Path) -> None:
    made = DiskVolumes(state, now=lambda: 1234.5)
    assert made.aside() == []
    volume = made.ensure("a-tenant", UID, 16 * MIB)
    (volume.data / "app.db").write_bytes(b"x" * MIB)
    path = made.set_aside("a-tenant", "e00000001")
    (found,) = made.aside()
    assert (found.tenant, found.path, found.at) == ("a-tenant", path, 1234.5)
    assert found.size_bytes > 0
    with pytest.raises(RuntimeFailed, match="not set aside here"):
        made.drop_aside(state / "t")
    made.drop_aside(path)
    made.drop_aside(path)
    assert made.aside() == []


def test_a_volume_aside_without_a_note_counts_from_when_it_was_moved(state: Path) -> None:
    made = DiskVolumes(state)
    made.ensure("a-tenant", UID, 16 * MIB)
    path = made.set_aside("a-tenant", "unknown")
    (path / volumes.NOTE).unlink()
    (found,) = made.aside()
    assert (found.tenant, found.at) == ("a-tenant", path.stat().st_ctime)
