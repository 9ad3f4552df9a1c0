"""Runs a command where it cannot disturb the machine: python -m tests.testbed.private COMMAND...

As root it gets process, mount and network namespaces of its own. Its network has a loopback and nothing else, until a
test adds some. However the command ends, also by SIGKILL, the kernel ends everything that it started, engines and
containers among it, and takes its networks and mounts away. Where namespaces cannot be had, the command runs as it is:
the tests that need them say so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "TESTS_PRIVATE"
_UNSHARE = ("unshare", "--pid", "--mount", "--ipc", "--fork", "--mount-proc", "--kill-child")
# An engine that finds the host's containerd would share it, and with it its containers.
_HIDDEN = ("/run/containerd", "/run/docker")
# Nothing in here talks to the machine's engine by chance: where none is named, none answers.
_NO_ENGINE = "unix:///run/docker/none.sock"


def inside() -> bool:
    """Whether this process runs in namespaces of the tests' own."""
    return VARIABLE in os.environ


def host_network(command: Sequence[str | Path]) -> list[str]:
    """The command as it runs in the machine's network, for what fetches packages: process 1 in here stays in it."""
    parts = [str(part) for part in command]
    return ["nsenter", "--net=/proc/1/ns/net", "--", *parts] if inside() else parts


def orphans() -> dict[int, str]:
    """Processes in here whose parent is gone: process ids and commands. Containers' own parents are not counted."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if parent == 1 and command and not command.startswith(("containerd-shim", "/usr/bin/containerd-shim")):
                found[int(folder.name)] = command
    return found


def main(command: list[str]) -> int:
    """Run the command in there; answers its exit status."""
    if inside() or os.geteuid() != 0 or subprocess.run([*_UNSHARE, "true"], check=False).returncode != 0:
        os.execvp(command[0], command)  # noqa: S606 - the caller's own command
    end_with_us = ("setpriv", "--pdeathsig", "KILL", "--")
    outer = subprocess.Popen(
        [*end_with_us, *_UNSHARE, sys.executable, "-m", "tests.testbed.private", "--first", *command]
    )

    def tell(number: int, _frame: object) -> None:
        for pid in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
            os.kill(int(pid), number)  # unshare itself blocks signals

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, tell)
    return _wait(outer)


def first(command: list[str]) -> int:
    """What runs as process 1 in there: prepares mounts and network, runs the command, lets nothing survive it."""
    for folder in _HIDDEN:
        Path(folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711", "tests", folder], check=True)
    script = 'ip link set lo up && exec "$@"'
    running = subprocess.Popen(
        ["unshare", "--net", "--", "sh", "-c", script, "sh", *command],
        env={**os.environ, VARIABLE: "1", "DOCKER_HOST": _NO_ENGINE},
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: running.terminate())
    try:
        return _reap_until(running.pid)
    finally:
        thaw_everything()


def _wait(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return _status(child.wait())
        except KeyboardInterrupt:
            continue  # the terminal has told the command too: it decides


def _reap_until(pid: int) -> int:
    """Collect every process that ends in here, as process 1 must, until this one has ended."""
    while True:
        try:
            ended, status = os.wait()
        except KeyboardInterrupt:
            continue
        if ended == pid:
            return _status(os.waitstatus_to_exitcode(status))


def _status(code: int) -> int:
    return 128 - code if code < 0 else code


def thaw_everything() -> None:
    """Thaw what tests left frozen: with version 1 of cgroups a frozen process does not die before."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for line in (folder / "cgroup").read_text().splitlines():
                _number, controllers, path = line.split(":", 2)
                if "freezer" in controllers.split(",") and path != "/":
                    thaw(Path("/sys/fs/cgroup/freezer" + path))


def thaw(group: Path) -> None:
    """Thaw a group and those above it."""
    while group.name != "freezer":
        with contextlib.suppress(OSError):
            (group / "freezer.state").write_text("THAWED")
        group = group.parent


if __name__ == "__main__":
    asked = sys.argv[1:]
    sys.exit(first(asked[1:]) if asked[:1] == ["--first"] else main(asked))
