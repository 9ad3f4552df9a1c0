"""The whole product in a box: its processes on this run's engine, its commands as a user types them, and the means to
break it: each part killed by its process id, the store behind a proxy or stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.testbed.operate import Operated
from tests.testbed.process import FLEET, Process, free_ports, wait_until

ROOT = Path(__file__).resolve().parents[2]
DOCSEARCH = ROOT / "deploy/examples/docsearch"
PARTS = ("agent", "guard")
READONLY = "may-look-and-nothing-else"


class Box(Operated):
    """One fleet of one machine: `fleet serve` with a store of the test's, or the embedded one."""

    def __init__(self, folder: Path, docker_host: str, store_env: dict[str, str], **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        controller, agent, gateway = free_ports(3)
        self.folder = folder
        self.state = folder / "state"
        self.run_dir = Path(f"/run/fleet-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}")
        self.fleet_name = self.run_dir.name
        self.controller = f"http://127.0.0.1:{controller}"
        self.agent = f"http://127.0.0.1:{agent}"
        self.gateway = f"http://127.0.0.1:{gateway}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLEET_", "AWS_"))}
        self.env = {
            **clean,
            **store_env,
            "DOCKER_HOST": docker_host,
            "FLEET_STATE_DIR": str(self.state),
            "FLEET_CONTROLLER": self.controller,
            "FLEET_CONTROLLER_LISTEN": f"127.0.0.1:{controller}",
            "FLEET_AGENT_LISTEN": f"127.0.0.1:{agent}",
            "FLEET_GATEWAY_LISTEN": f"127.0.0.1:{gateway}",
            "FLEET_NODE": "one",
            "FLEET_MODE": "solo",
            "FLEET_TOKEN_READONLY": READONLY,
            **settings,
        }
        self.process = Process([FLEET, "serve"], log=folder / "serve.log", environment=self.env, cwd=folder)

    # ---- its life

    def start(self) -> None:
        """Start it and wait until a node is ready."""
        self.process.start(self.ready, timeout_s=60)

    def ready(self) -> bool:
        """Whether the controller has a ready node."""
        try:
            status, body = self.request("GET", f"{self.controller}/readyz")
        except OSError:
            return False
        return status == 200 and bool(body.get("nodes_ready"))

    def stop(self) -> None:
        """SIGTERM, and all that a stopped fleet leaves on a machine removed."""
        self.process.signal(signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.process.alive, "the end of fleet serve", timeout_s=90)
        if self.process.alive:
            self.process.kill()
        for part in PARTS:
            self.kill(part)
        subprocess.run([sys.executable, "-m", "node.agent", "teardown"], env=self.env, check=False, timeout=120)
        shutil.rmtree(self.run_dir, ignore_errors=True)

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

    def controller_pid(self) -> int | None:
        """The controller's process."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    environ = (folder / "environ").read_bytes()
                    if b"fleet.app" in words and f"FLEET_STATE_DIR={self.state}".encode() in environ.split(b"\0"):
                        return int(folder.name)
        return None

    def kill(self, part: str) -> bool:
        """SIGKILL the guard, the agent or the controller; answers whether there was one."""
        pid = self.controller_pid() if part == "controller" else self.pid(part)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def container(self, tenant: str, role: str = "worker") -> str:
        """The name of one of a tenant's containers."""
        return f"{self.fleet_name}-{tenant}-{role}"

    def docker(self, *words: str, check: bool = True) -> str:
        """The engine's own command line, behind the product's back."""
        done = subprocess.run(
            ["docker", *words], env=self.env, capture_output=True, text=True, check=False, timeout=120
        )
        assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout

    def kill_container(self, tenant: str, role: str = "worker") -> None:
        """SIGKILL a container's process."""
        self.docker("kill", "-s", "KILL", self.container(tenant, role), check=False)

    def is_running(self, tenant: str, role: str = "worker") -> bool:
        """Whether the engine runs that container."""
        return self.docker("inspect", "-f", "{{.State.Running}}", self.container(tenant, role), check=False) == "true\n"

    def kill_all_containers(self) -> None:
        """SIGKILL every container of this fleet, the gateway's among them."""
        names = self.docker("ps", "-q", "--filter", f"name=^{self.fleet_name}-").split()
        if names:
            self.docker("kill", "-s", "KILL", *names, check=False)

    def unmount(self, folder: Path) -> None:
        """Take away what is mounted below a folder, as a lost disk would be."""
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=True)

    def lose_node(self, tenant: str) -> None:
        """All of the node killed at once, and the tenant's volume gone."""
        for part in ("guard", "agent"):
            self.kill(part)
        names = self.docker("ps", "-aq", "--filter", f"name=^{self.fleet_name}-").split()
        if names:
            self.docker("rm", "-f", *names)
        self.unmount(self.state / "t" / tenant)
        shutil.rmtree(self.state / "t" / tenant)

    def log(self) -> str:
        """The end of its log, for a failure."""
        return "\n".join((self.folder / "serve.log").read_text(errors="replace").splitlines()[-60:])

    def token(self) -> str:
        """The fleet's token."""
        if "FLEET_TOKEN" in self.env:
            return self.env["FLEET_TOKEN"]
        return (self.state / "token").read_text().strip()


@contextlib.contextmanager
def running(box: Box) -> Iterator[Box]:
    """A box that is started, and gone at the end."""
    try:
        box.start()
        yield box
    finally:
        box.stop()
