"""A machine of the fleet: a host with a disk, a Docker engine and a node, each of which can be broken by itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.testbed.engine import Engine, dockerd, remove_cgroups
from tests.testbed.host import Entered, Host
from tests.testbed.net import Switch
from tests.testbed.process import FLEET, Process, answers, wait_until

AGENT, GATEWAY = 7081, 7080
DISK_BYTES = 4 << 30
PARTS = ("guard", "agent")


class Machine(Host):
    """One node. Its disk is a sparse file that outlives its power: `state` is mounted from it, inside.

    `power_on` gives it power and its engine, `join` its node. `settings` is the environment of its processes.
    """

    def __init__(
        self, name: str, address: str, folder: Path, switch: Switch, settings: Mapping[str, str], data: Path
    ) -> None:
        super().__init__(name, address, folder, switch)
        self.disk = folder / "disk.ext4"
        self.state = folder / "state"
        self.run_dir = _run_dir(self.state)
        self.fleet_name = self.run_dir.name
        self.agent = f"http://{address}:{AGENT}"
        self.gateway = f"http://{address}:{GATEWAY}"
        self.engine = Engine("unix:///nowhere")
        self.node: Entered | None = None
        self._data = data
        self._cgroup = f"tests-{self.fleet_name}"  # of what the product does not put elsewhere
        self.env = {
            **settings,
            "DOCKER_HOST": f"unix://{folder}/docker.sock",
            "FLEET_NODE": name,
            "FLEET_STATE_DIR": str(self.state),
            "FLEET_AGENT_LISTEN": f"{address}:{AGENT}",
            "FLEET_GATEWAY_LISTEN": f"{address}:{GATEWAY}",
        }
        self.state.mkdir(exist_ok=True)
        if not self.disk.exists():
            with self.disk.open("wb") as file:
                file.truncate(DISK_BYTES)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", self.disk], check=True)

    # ---- its life

    def power_on(self) -> None:
        """A fresh boot with its old disk: an engine, with the containers that it had, none running."""
        forget(self.state)
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        super().power_on()
        self.run("mount", "-o", "loop", self.disk, self.state)
        self.engine = self._engine()
        self.engine.start()

    def power_off(self) -> None:
        """A power cut."""
        super().power_off()
        self.node = None
        wait_until(lambda: not self._disk_is_used(), f"the disk of {self.name} let go of")

    def join(self) -> None:
        """Its node, and wait until its agent is ready."""
        self.node = self.process([FLEET, "node"], log="node.log", environment=self.env)
        self.node.start(answers(AGENT, "/readyz", 200, host=self.address))

    def leave(self) -> None:
        """SIGTERM to its guard: everything is released; bounded."""
        assert self.node is not None
        if (pid := self.pid("guard")) is not None:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not any(self.pid(part) for part in PARTS), f"{self.name} left", timeout_s=90)

    def reboot(self) -> None:
        """A power cut, then everything again with the old disk."""
        self.power_off()
        self.power_on()
        self.join()

    def remove(self) -> None:
        """Off, and nothing left of it."""
        self.power_off()
        forget(self.state)
        super().remove()

    # ---- breaking it

    def pid(self, part: str) -> int | None:
        """The process that is the guard or the agent now: the one that holds its lock."""
        try:
            inode = (self.run_dir / f"{part}.lock").stat().st_ino
        except OSError:
            return None
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode) and int(fields[4]) > 0:
                return int(fields[4])
        return None

    def signal(self, part: str, number: signal.Signals) -> None:
        """Send a signal to the guard or the agent. Raises AssertionError if there is none."""
        pid = self.pid(part)
        assert pid is not None, f"{self.name} has no {part}"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_containers(self) -> None:
        """SIGKILL every container of the fleet on it."""
        if names := self.docker("ps", "-q").split():
            self.docker("kill", "-s", "KILL", *names, check=False)

    def docker(self, *words: str, check: bool = True) -> str:
        """The engine's own command line, behind the product's back."""
        return self.run("docker", *words, check=check, DOCKER_HOST=self.env["DOCKER_HOST"])

    def workers(self) -> list[str]:
        """The tenants whose worker it runs now."""
        running = self.docker("ps", "--format", "{{.Names}}").split()
        return [n.removeprefix(f"{self.fleet_name}-").removesuffix("-worker") for n in running if n.endswith("-worker")]

    def container(self, tenant: str, role: str = "worker") -> str:
        """The name of one of a tenant's containers."""
        return f"{self.fleet_name}-{tenant}-{role}"

    def fill(self) -> None:
        """Its disk is full, until `empty_disk`."""
        free = int(self.run("df", "--output=avail", "-B1", self.state).split()[-1])
        self.run("fallocate", "-l", str(free * 99 // 100), self.state / "filler")
        self.run("dd", "if=/dev/zero", f"of={self.state}/filler", "bs=64K", "oflag=append", "conv=notrunc", check=False)

    def empty_disk(self) -> None:
        """There is room again."""
        self.run("rm", "-f", self.state / "filler")

    def cages(self) -> list[str]:
        """The cgroups of the fleet's containers and of the others."""
        return [self.fleet_name, self._cgroup]

    def copy_of_disk(self) -> Path:
        """The disk as it is now, for `put_disk`. It must be off."""
        assert not self.on
        copy = self.folder / "disk.old"
        subprocess.run(["cp", "--sparse=always", self.disk, copy], check=True)
        return copy

    def put_disk(self, copy: Path) -> None:
        """That disk in place of the one it has. It must be off."""
        assert not self.on
        copy.replace(self.disk)

    def log(self) -> str:
        """The end of what its node said, for a failure."""
        return f"---- {self.name}\n{self.tail('node.log')}"

    def _disk_is_used(self) -> bool:
        listed = subprocess.run(["losetup", "--associated", self.disk], capture_output=True, check=True)
        return bool(listed.stdout.strip())

    def _engine(self) -> Engine:
        socket, pidfile = self.folder / "docker.sock", self.folder / "docker.pid"
        command = dockerd(self._data, self.folder / "exec", socket, pidfile, self._cgroup)
        process: Process = self.process(command, log="dockerd.log", environment={"DOCKER_HOST": ""})
        return Engine(f"unix://{socket}", process, pidfile)


def forget(state: Path) -> None:
    """What ends with a boot of the machine that has this state folder: its runtime folder and its empty cgroups."""
    run_dir = _run_dir(state)
    remove_cgroups(run_dir.name, f"{run_dir.name}-dying", f"tests-{run_dir.name}")
    shutil.rmtree(run_dir, ignore_errors=True)


def _run_dir(state: Path) -> Path:
    """As the product has it."""
    return Path(f"/run/fleet-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}")
