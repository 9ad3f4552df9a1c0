"""A computer of its own on this one: processes, mounts and network in namespaces that end together.

Killing its first process is a power cut: the kernel ends everything in there at once. What it leaves is on its disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testbed.net import Switch, own_network
from tests.testbed.private import thaw
from tests.testbed.process import Process, wait_until

_STOP_S = 15.0
_CPU = Path("/sys/fs/cgroup/cpu")
_QUOTA, _PERIOD_US = "cpu.cfs_quota_us", 100_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Whoever loses its parent in there comes to the first process, which lets go of it when it ends.
_FIRST = "import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp('sleep', ['sleep', 'infinity'])"


class Entered(Process):
    """A program inside a host: what `Process` is, its signals going to the program itself."""

    ends_with_us = ()  # its host does; and what is bound to its parent dies with the thread that started it

    def __init__(
        self, first: int, command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        super().__init__([*entering(first), *command], log=log, environment=environment, cwd=cwd)

    @property
    def pid(self) -> int:
        """The program's process id, not that of what entered for it. Raises AssertionError when it is not there."""
        children = Path(f"/proc/{super().pid}/task/{super().pid}/children").read_text().split()
        assert children, "it has ended"
        return int(children[0])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it lives."""
        if self.alive:
            with contextlib.suppress(AssertionError, OSError):
                os.kill(self.pid, number)
            if number != signal.SIGSTOP:
                self.wake()

    def wake(self) -> None:
        """Who entered for it stops with it, and must go on to see its end."""
        super().signal(signal.SIGCONT)


def entering(first: int) -> list[str]:
    """What comes before a command that runs inside."""
    return ["nsenter", f"--target={first}", "--mount", "--net", "--pid", "--"]


class Host:
    """One computer. `folder` is the tests' own, for its logs; `address` the one that others reach it by."""

    def __init__(self, name: str, address: str, folder: Path, switch: Switch) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self._switch = switch
        self._holder: subprocess.Popen[bytes] | None = None
        self._programs: list[Entered] = []
        self._quotas: dict[Path, str] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def on(self) -> bool:
        """Whether it has power."""
        return self._holder is not None and self._holder.poll() is None

    @property
    def first(self) -> int:
        """Its first process. Raises AssertionError while it is off."""
        assert self._holder is not None, f"{self.name} is off"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        assert children, f"{self.name} is off"
        return int(children[0])

    def power_on(self) -> None:
        """A fresh boot: its own boot id, nothing running yet, its cable in."""
        assert not self.on, f"{self.name} is on"
        kinds = ("--pid", "--mount", "--net", "--ipc", "--fork", "--mount-proc", "--kill-child")
        # Not bound to the thread that starts it: the run's own namespaces end it at the latest.
        command = ["unshare", *kinds, "python3", "-c", _FIRST]
        nothing = subprocess.DEVNULL
        self._holder = subprocess.Popen(command, stdin=nothing, stderr=nothing, start_new_session=True)
        wait_until(self._has_begun, f"the boot of {self.name}")
        boot = self.folder / "boot_id"
        boot.write_text(f"{uuid.uuid4()}\n")
        self.run("mount", "--bind", boot, _BOOT_ID)
        self._switch.plug(self.name, self.first, self.address)

    def power_off(self) -> None:
        """Its cable out, and everything in it gone at once: SIGKILL, frozen or not."""
        self._switch.unplug(self.name)
        if not self.on:
            return
        assert self._holder is not None
        groups = [Path(f"/proc/{pid}/cgroup") for pid in self.processes()]
        frozen = {line for path in groups for line in _lines(path) if ":freezer:/" in line and not line.endswith(":/")}
        os.kill(self.first, signal.SIGKILL)
        for line in frozen:  # they have the signal: thawed they die before they do anything else
            thaw(Path("/sys/fs/cgroup/freezer" + line.split(":", 2)[2]))
        self._wake()
        self._holder.wait(_STOP_S)
        self._holder = None
        self._programs.clear()
        self._quotas.clear()
        with contextlib.suppress(OSError):
            self._slowed().rmdir()

    def pause(self) -> None:
        """Everything in it stands still, as in a virtual machine that is paused; clocks go on."""
        for _ in range(20):
            running = [pid for pid in self.processes() if _state(pid) not in "TZX"]
            for pid in running:
                _send(pid, signal.SIGSTOP)
            if not running:
                return

    def resume(self) -> None:
        """It goes on where it stood, tenants before their guard."""
        for pid in reversed(self.processes()):
            _send(pid, signal.SIGCONT)
        self._wake()

    def slow(self, cpus: float) -> None:
        """Each container of it, and all else that runs in it now, has so much of a processor at most, until `hurry`.
        Version 1 of cgroups only."""
        for folder in self._cpu_groups():
            self._quotas.setdefault(folder, (folder / _QUOTA).read_text())
            (folder / _QUOTA).write_text(str(int(cpus * _PERIOD_US)))

    def hurry(self) -> None:
        """It has all of the processors again."""
        for folder, quota in self._quotas.items():
            with contextlib.suppress(OSError):  # a container that is gone
                (folder / _QUOTA).write_text(quota)
        self._quotas.clear()

    def cages(self) -> list[str]:
        """Names of cgroups that its containers are in."""
        return []

    def _slowed(self) -> Path:
        return _CPU / f"tests-slow-{self.folder.parent.name}-{self.name}"

    def _cpu_groups(self) -> list[Path]:
        mine = self._slowed()
        mine.mkdir(exist_ok=True)
        caged = [folder for name in self.cages() for folder in (_CPU / name).glob("*/")]
        contained = {pid for folder in caged for path in folder.rglob("cgroup.procs") for pid in _lines(path)}
        for pid in self.processes():
            if str(pid) not in contained:
                with contextlib.suppress(OSError):
                    (mine / "cgroup.procs").write_text(str(pid))
        return [mine, *caged]

    def processes(self) -> list[int]:
        """Every process in it, those of its containers among them, parents first; empty while it is off."""
        if not self.on:
            return []
        inside = Path(f"/proc/{self.first}/ns/pid").stat().st_ino
        parents: dict[int, int] = {}
        own: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                pid = int(folder.name)
                parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if (folder / "ns/pid").stat().st_ino == inside:
                    own.append(pid)
        found = list(dict.fromkeys([self.first, *own]))
        for pid in found:  # grows while it is walked
            found += [child for child, parent in parents.items() if parent == pid and child not in found]
        return found

    def process(
        self, command: Sequence[str | Path], *, log: str, environment: Mapping[str, str], cwd: Path | None = None
    ) -> Entered:
        """A program of it, to be started."""
        log_file = self.folder / log
        made = Entered(self.first, command, log=log_file, environment=environment, cwd=cwd or self.folder)
        self._programs.append(made)
        return made

    def run(self, *command: str | Path, check: bool = True, **environment: str) -> str:
        """A command inside; answers what it printed. Raises AssertionError with what it said."""
        done = subprocess.run(
            [*entering(self.first), *(str(part) for part in command)],
            capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command} on {self.name}: {done.stderr}{done.stdout}"
        return done.stdout

    def tail(self, log: str) -> str:
        """The end of one of its logs."""
        path = self.folder / log
        return "\n".join(path.read_text(errors="replace").splitlines()[-40:]) if path.exists() else f"no {log}"

    def remove(self) -> None:
        """Off, and nothing left of it."""
        self.power_off()
        subprocess.run(["rm", "-rf", self.folder], check=False)

    def _wake(self) -> None:
        for program in self._programs:
            program.wake()

    def _has_begun(self) -> bool:
        try:
            first = self.first
            return own_network(first) and Path(f"/proc/{first}/comm").read_text().strip() == "sleep"
        except (AssertionError, OSError):
            return False


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().splitlines()
    return []


def _state(pid: int) -> str:
    """One letter, as the kernel has it; X for what is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
