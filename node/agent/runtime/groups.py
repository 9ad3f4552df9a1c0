"""The tenants' cgroup on this machine: made before the first container, and killed in while it is frozen."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from pathlib import Path

from node.agent.ports import Freezer, RuntimeFailed
from node.agent.runtime.cgroup import Cgroups


def make(cgroups: Cgroups, freezer: Freezer) -> None:
    """The parent is there, also with nothing in it, so that it can be frozen first. Raises RuntimeFailed."""
    if cgroups.driver == "systemd":
        # An active slice keeps its cgroup, and with it the freeze, when the last container in it ends.
        done = subprocess.run(["systemctl", "start", freezer.group.name], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            text = f"cannot start {freezer.group.name}: {done.stderr.strip()}"
            raise RuntimeFailed(text, reason="no_cgroup", retryable=True)
        if freezer.v2:
            return
    try:
        freezer.group.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        text = f"cannot make the cgroup {freezer.group}: {e.strerror}; the agent needs root"
        raise RuntimeFailed(text, reason="no_cgroup", retryable=False) from e


def remove(cgroups: Cgroups, freezer: Freezer) -> None:
    """The parent is gone, unless something still is in it."""
    if cgroups.driver == "systemd":
        subprocess.run(["systemctl", "stop", freezer.group.name], capture_output=True, check=False)
    for group in (freezer.group, _dying(freezer)):
        with contextlib.suppress(OSError):
            group.rmdir()


def is_frozen(freezer: Freezer) -> bool:
    """Whether a freeze is wanted, reached or not."""
    try:
        return freezer.file.read_bytes().strip() not in (b"", freezer.thaw)
    except FileNotFoundError:
        return False


def allow(file: Path, quota: bytes) -> None:
    """Bound how much a container computes; one that is gone is fine. Raises RuntimeFailed."""
    try:
        file.write_bytes(quota)
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno == errno.ENODEV:  # it went while the file was open
            return
        raise RuntimeFailed(f"cannot write {file}: {e.strerror}", reason="no_cgroup", retryable=True) from e


def kill(group: Path, freezer: Freezer) -> bool:
    """Kill everything in one container's group, frozen or not; answers whether there was anything.

    On cgroup v1 a killed process that is frozen does not die: it is moved, already killed, to a group that runs,
    where it dies before it does anything else.
    """
    try:
        pids = (group / "cgroup.procs").read_text().split()
    except OSError:  # the group is gone
        return False
    for pid in pids:
        with contextlib.suppress(OSError):  # it is gone: the caller looks again
            os.kill(int(pid), signal.SIGKILL)
            if not freezer.v2:
                _dying(freezer).mkdir(exist_ok=True)
                (_dying(freezer) / "cgroup.procs").write_text(pid)
    return bool(pids)


def _dying(freezer: Freezer) -> Path:
    return freezer.group.with_name(freezer.group.name + "-dying")
