"""The tenants' cgroup: everything in it stands still, goes on, or is killed at once. Needs root, asks no engine.

The parent stays frozen while tenants must not run, so that a container which the engine starts late is born frozen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from node.agent.ports import Freezer

_PATIENCE_S = 0.2
_STEP_S = 0.005


def freeze(freezer: Freezer) -> bool:
    """Write the freeze and wait a moment; answers whether every process stands still (else: call again)."""
    prepare(freezer)
    return _reach(freezer, freezer.freeze, frozen=True)


def thaw(freezer: Freezer) -> bool:
    """Let everything go on; answers whether it does."""
    prepare(freezer)
    return _reach(freezer, freezer.thaw, frozen=False)


def prepare(freezer: Freezer) -> None:
    """Make the parent cgroup, so that it can be frozen before the first container is in it."""
    freezer.group.mkdir(parents=True, exist_ok=True)


def is_frozen(freezer: Freezer) -> bool:
    """Whether every process of the group stands still now. No group: nothing runs, but it is not frozen."""
    try:
        if freezer.v2:
            return "frozen 1" in (freezer.group / "cgroup.events").read_text().splitlines()
        return freezer.file.read_text().strip() == "FROZEN"
    except FileNotFoundError:
        return False


def processes(freezer: Freezer) -> list[int]:
    """Every process in the group and in the groups below it."""
    found: list[int] = []
    for path in [freezer.group, *_below(freezer.group)]:
        with contextlib.suppress(OSError):  # the group went away with its last process
            found += [int(line) for line in (path / "cgroup.procs").read_text().split()]
    return found


def kill(freezer: Freezer, *, patience_s: float = 5.0) -> bool:
    """Kill everything in the group while it stays frozen; answers whether nothing is left.

    On cgroup v1 a killed process that is frozen does not die: it is moved, already killed, to a group beside this one
    that runs, where it dies without running another instruction of its own.
    """
    dying = freezer.group.with_name(freezer.group.name + "-dying")
    until = time.monotonic() + patience_s
    while pids := processes(freezer):
        if time.monotonic() > until:
            return False
        if not freezer.v2:
            dying.mkdir(exist_ok=True)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if not freezer.v2:
                with contextlib.suppress(OSError):  # it is dead already
                    (dying / "cgroup.procs").write_text(str(pid))
        time.sleep(_STEP_S)
    with contextlib.suppress(OSError):  # the last of them is still being reaped: the next kill removes it
        dying.rmdir()
    return True


def _below(group: Path) -> list[Path]:
    try:
        return [p for p in group.rglob("*") if p.is_dir()]
    except FileNotFoundError:  # a container ended while its group was listed
        return [p for p in group.glob("*") if p.is_dir()]


def _reach(freezer: Freezer, value: bytes, *, frozen: bool) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while True:
        freezer.file.write_bytes(value)
        if is_frozen(freezer) == frozen:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(_STEP_S)
