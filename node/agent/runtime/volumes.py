"""Tenants' folders on this machine: `<state>/t/<t>/{data,meta,run,marker}`, and `<state>/aside` for what is kept.

A volume exists whole or not at all: it is made beside its place and renamed into it, and renamed away before it is
deleted. Nothing here looks inside a folder that a tenant can write, except to delete it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from node.agent.ports import AsideVolume, RuntimeFailed, Volume
from node.agent.runtime import quota

IMAGE = "data.ext4"
NOTE = "aside.json"
# Below this a volume is not made: the node gives the tenant up to one that has room.
LOWEST_FREE_BYTES = 256 << 20


class DiskVolumes:
    """Implements node.agent.ports.Volumes under `state`. Needs root. Calls for one tenant must not overlap."""

    def __init__(self, state: Path, now: Callable[[], float] = time.time) -> None:
        self._tenants = state / "t"
        self._aside = state / "aside"
        self._now = now

    def ensure(self, tenant: str, uid: int, disk_bytes: int) -> Volume:
        """The tenant's volume, made empty if there is none; owners, modes and allowance are mended.

        A smaller allowance than the volume has counts from its next volume on. Raises RuntimeFailed: disk_full,
        volume_damaged, no_quota.
        """
        home = self._home(tenant)
        try:
            if not home.exists():
                self._make(tenant, home, disk_bytes)
            volume = self._attach(home)
            if (home / IMAGE).exists():
                quota.grow(home / IMAGE, volume.data, disk_bytes)
            for folder, owner, mode in (
                (home, 0, 0o700),
                (volume.data, uid, 0o700),
                (volume.meta, uid, 0o700),
                (volume.run, 0, 0o755),
                (volume.marker, 0, 0o700),
            ):
                _mend(folder, owner, mode)
        except OSError as e:
            raise RuntimeFailed(f"the volume of {tenant}: {e}", reason=_reason(e), retryable=True) from e
        return volume

    def find(self, tenant: str) -> Volume | None:
        """The tenant's volume if there is one, mounted again after a reboot. Raises RuntimeFailed (volume_damaged):
        it is there, and unreadable."""
        home = self._home(tenant)
        if not home.exists():
            return None
        try:
            return self._attach(home)
        except OSError as e:
            raise RuntimeFailed(f"the volume of {tenant}: {e}", reason=_reason(e), retryable=True) from e

    def set_aside(self, tenant: str, label: str) -> Path:
        """Move the whole volume out of the way (never wiped): `<state>/aside/<t>-<label>-<n>`; answers where to.

        Its `data` is then in the file `data.ext4` there: `mount -o loop,ro` shows it.
        """
        home = self._home(tenant)
        try:
            self._aside.mkdir(mode=0o700, parents=True, exist_ok=True)
            quota.detach(home / "data")
            n = 1
            while (path := self._aside / f"{tenant}-{label}-{n}").exists():
                n += 1
            (home / NOTE).write_text(json.dumps({"tenant": tenant, "at": self._now()}))
            home.rename(path)
        except OSError as e:
            raise RuntimeFailed(
                f"the volume of {tenant} stays in {home}: {e}", reason=_reason(e), retryable=True
            ) from e
        return path

    def aside(self) -> list[AsideVolume]:
        """Every volume that was set aside and is still there, oldest first. One without a note that can be read counts
        from when it was moved."""
        try:
            found = [_noted(Path(entry.path)) for entry in os.scandir(self._aside) if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda v: v.at)

    def drop_aside(self, path: Path) -> None:
        """Delete a volume that was set aside; one that is gone is fine. Raises RuntimeFailed."""
        if path.parent != self._aside:
            raise RuntimeFailed(f"{path} was not set aside here", reason="bad_request", retryable=False)
        try:
            _delete(path)
        except OSError as e:
            raise RuntimeFailed(f"{path} is not all gone: {e}", reason=_reason(e), retryable=True) from e

    def stopped(self, tenant: str) -> bool:
        """Whether its disk has stopped writing after an error, and there is room again for it to begin anew."""
        data = self._home(tenant) / "data"
        return data.is_mount() and quota.stopped(data) and _free_bytes(self._tenants) >= LOWEST_FREE_BYTES

    def discard(self, tenant: str) -> None:
        """Delete the volume of a tenant whose last byte is confirmed and released, or whose purge is due; one that is
        gone is fine."""
        home, old = self._home(tenant), self._tenants / f".old-{tenant}"
        try:
            quota.detach(home / "data")
            _delete(old)
            if home.exists():
                home.rename(old)
            _delete(old)
        except OSError as e:
            raise RuntimeFailed(
                f"the volume of {tenant} is not all gone: {e}", reason=_reason(e), retryable=True
            ) from e

    def used_bytes(self, tenant: str) -> int:
        """What the tenant's `data` occupies; 0 when it has none."""
        home = self._home(tenant)
        if not home.exists():
            return 0
        volume = self._attach(home)
        if volume.data.is_mount():
            room = os.statvfs(volume.data)
            return (room.f_blocks - room.f_bfree) * room.f_frsize
        return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in _files(volume.data))

    def tenants(self) -> list[str]:
        """Every tenant with a volume here."""
        try:
            return sorted(entry.name for entry in os.scandir(self._tenants) if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def detach(self) -> None:
        """Unmount every volume, for uninstalling; each is mounted again when it is looked for."""
        for tenant in self.tenants():
            quota.detach(self._home(tenant) / "data")

    def _home(self, tenant: str) -> Path:
        return self._tenants / tenant

    def _make(self, tenant: str, home: Path, disk_bytes: int) -> None:
        self._tenants.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _free_bytes(self._tenants) < LOWEST_FREE_BYTES:
            text = f"no room for {tenant}: less than {LOWEST_FREE_BYTES >> 20} MiB are free in {self._tenants}"
            raise RuntimeFailed(text, reason="disk_full", retryable=True)
        fresh = self._tenants / f".new-{tenant}"
        _delete(fresh)
        fresh.mkdir(mode=0o700)
        for name in ("meta", "run", "marker"):
            (fresh / name).mkdir(mode=0o700)
        # While nothing is mounted there nobody but root gets in: an unmounted volume can't be taken for an empty one.
        (fresh / "data").mkdir(mode=0)
        if not quota.supported():
            quota.make(fresh / IMAGE, disk_bytes)
        fresh.rename(home)

    def _attach(self, home: Path) -> Volume:
        volume = Volume(home / "data", home / "meta", home / "run", home / "marker")
        if (home / IMAGE).exists() and quota.attach(home / IMAGE, volume.data):
            _distrust(volume.marker)
        return volume


def _free_bytes(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _noted(path: Path) -> AsideVolume:
    try:
        note = json.loads((path / NOTE).read_text())
        tenant, at = str(note["tenant"]), float(note["at"])
    except (OSError, ValueError, TypeError, KeyError):
        tenant, at = path.name.rsplit("-", 2)[0], path.stat().st_ctime
    image = path / IMAGE
    files = [image.stat()] if image.exists() else [e.stat(follow_symlinks=False) for e in _files(path)]
    return AsideVolume(tenant, path, at, sum(f.st_blocks * 512 for f in files))


def _distrust(marker: Path) -> None:
    """What was noted of a volume whose disk stopped is not true any more: what it holds is older than what was read."""
    for note in marker.glob("*.json"):
        note.rename(note.with_suffix(".stopped"))


def _mend(folder: Path, owner: int, mode: int) -> None:
    """Owner and mode, through a descriptor that cannot be a link; untouched when they are right."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (owner, owner):
            os.fchown(fd, owner, owner)
        if found.st_mode & 0o7777 != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _delete(folder: Path) -> None:
    """Delete a folder of ours and what a tenant left in it; links in it are deleted, never followed."""
    quota.detach(folder / "data")
    if folder.exists():
        shutil.rmtree(folder)


def _files(folder: Path) -> list[os.DirEntry[str]]:
    found: list[os.DirEntry[str]] = []
    for entry in os.scandir(folder):
        found.append(entry)
        if entry.is_dir(follow_symlinks=False):
            found += _files(Path(entry.path))
    return found


def _reason(error: OSError) -> str:
    return "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "bad_state"
