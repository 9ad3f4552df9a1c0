"""A tenant's disk allowance: its `data` is a file system of its own, in one sparse file, mounted through a loop device.

That bound holds on every kernel and file system (project quotas are off on the common ones); it bounds the number of
files as well, and a tenant's folder goes away as one file that nobody has to walk through.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from node.agent.ports import RuntimeFailed

_BLOCK = 4096
_TIMEOUT_S = 120.0
_LETS_GO_S = 0.1
_LETS_GO_TRIES = 30
_OPTIONS = "loop,nosuid,nodev,noatime,discard"


def image_bytes(disk_bytes: int) -> int:
    """The size of the file that leaves `disk_bytes` to its tenant after what the file system needs for itself."""
    wanted = disk_bytes + disk_bytes // 40 + (12 << 20)
    return -(-wanted // _BLOCK) * _BLOCK


def supported() -> str:
    """Why allowances can't be kept here, in one sentence; empty when they can."""
    if os.geteuid() != 0:
        return "mounting a tenant's disk needs root"
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount", "resize2fs", "losetup") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install e2fsprogs mount"
    if not Path("/dev/loop-control").exists():
        return "this kernel has no loop devices: modprobe loop"
    return ""


def make(image: Path, disk_bytes: int) -> None:
    """An empty file system in `image`. Raises RuntimeFailed (disk_full)."""
    try:
        with image.open("wb") as file:
            file.truncate(image_bytes(disk_bytes))
    except OSError as e:
        raise RuntimeFailed(f"cannot make {image}: {e.strerror}", reason="disk_full", retryable=True) from e
    lazy = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
    shape = ["-F", "-b", str(_BLOCK), "-i", "16384", "-m", "0", "-J", "size=4", "-E", lazy]
    _run(["mkfs.ext4", "-q", *shape, str(image)], "disk_full")


def attach(image: Path, folder: Path) -> bool:
    """Mount `image` at `folder`; mounted already is fine. One that a full disk has stopped is mounted afresh, and one
    that a crash has damaged is repaired. Answers whether it had stopped: then some of what was written to it, though
    it could be read until now, is gone. Raises RuntimeFailed (no_quota, volume_damaged, busy)."""
    had_stopped = folder.is_mount() and stopped(folder)
    if folder.is_mount():
        if not had_stopped:
            return False
        detach(folder)
    if _mount(image, folder):
        return had_stopped
    detach(folder)
    if _stays_in_use(image):
        _mount(image, folder)  # as it was: who looks after its containers looks here
        text = f"{image} is read-only after an error of its disk, and a container still uses it: stop that first"
        raise RuntimeFailed(text, reason="busy", retryable=True)
    _repair(image)
    if not _mount(image, folder):
        raise RuntimeFailed(f"cannot mount {image} at {folder}; see dmesg", reason="no_quota", retryable=True)
    return had_stopped


def stopped(folder: Path) -> bool:
    """Whether the file system mounted there has stopped writing after an error. Newer kernels have a word of their own
    for that, and call it writable still."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return True
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    options = [fields[3].split(",") for fields in mounts if fields[1] == str(folder)]
    return bool(options) and "emergency_ro" in options[-1]


def detach(folder: Path) -> None:
    """Unmount; what is not mounted is fine. A folder that somebody still uses goes when they are done."""
    if folder.is_mount() and _call(["umount", str(folder)]).returncode != 0:
        _run(["umount", "--lazy", str(folder)], "busy")


def grow(image: Path, folder: Path, disk_bytes: int) -> None:
    """Let a mounted file system have `disk_bytes`, while it is used where the kernel allows that, else once it is not
    used. It never shrinks: a smaller allowance is the next volume's."""
    before, wanted = image.stat().st_size, image_bytes(disk_bytes)
    if before >= wanted:
        return
    os.truncate(image, wanted)
    device = _run(["findmnt", "--noheadings", "--output", "SOURCE", str(folder)], "no_quota").strip()
    _run(["losetup", "--set-capacity", device], "no_quota")
    if _call(["resize2fs", device]).returncode == 0:
        return
    detach(folder)
    try:
        if _in_use(image):
            os.truncate(image, before)  # the next time that it is not used
        else:
            _repair(image)
            _run(["resize2fs", str(image)], "disk_full")
    finally:
        attach(image, folder)


def _stays_in_use(image: Path) -> bool:
    """Whether it is in use, and not only by a container that is being made beside and lets go of it in a moment."""
    for _ in range(_LETS_GO_TRIES):
        if not _in_use(image):
            return False
        time.sleep(_LETS_GO_S)
    return True


def _in_use(image: Path) -> bool:
    """Whether a loop device still has it: a container that was not told of the unmount writes to it."""
    return bool(_run(["losetup", "--associated", str(image)], "no_quota").strip())


def _repair(image: Path) -> None:
    """Raises RuntimeFailed (volume_damaged) when it needs a person."""
    checked = _call(["e2fsck", "-f", "-p", str(image)])
    if checked.returncode > 1:  # 1: it had errors, and has none now
        text = f"{image} is damaged: {(checked.stdout + checked.stderr).strip()[-300:]}"
        raise RuntimeFailed(text, reason="volume_damaged", retryable=False)


def _mount(image: Path, folder: Path) -> bool:
    """Whether it is mounted now and can be written."""
    if _call(["mount", "-t", "ext4", "-o", _OPTIONS, str(image), str(folder)]).returncode != 0:
        return False
    with contextlib.suppress(OSError):  # not empty, or no folder any more: then it is the tenant's
        (folder / "lost+found").rmdir()
    return not stopped(folder)


def _run(command: list[str], reason: str) -> str:
    done = _call(command)
    if done.returncode != 0:
        text = f"{command[0]} {command[-1]} failed: {done.stderr.strip()[-300:]}"
        raise RuntimeFailed(text, reason=reason, retryable=True)
    return done.stdout


def _call(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise RuntimeFailed(f"cannot run {command[0]}: {e}", reason="no_quota", retryable=True) from e
