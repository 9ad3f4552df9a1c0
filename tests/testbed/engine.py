"""A Docker engine of the tests' own, in the network of the run (see `private`), its images kept between runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import docker
import docker.errors

from tests.testbed.private import host_network, inside
from tests.testbed.process import Process
from tests.testbed.stores import cache

SLOTS = 4
BRIDGE = "10.213.0.1/24"
POOL = "base=10.214.0.0/16,size=24"
_REPOSITORY = Path(__file__).parents[2]


class NoEngine(Exception):
    """There can be no engine of the tests' own here; the message says why."""


class Engine:
    """A running engine. `host` is what DOCKER_HOST says."""

    def __init__(self, host: str, process: Process | None = None, pidfile: Path | None = None) -> None:
        self.host = host
        self._process = process
        self._pidfile = pidfile

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.alive

    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {"DOCKER_HOST": self.host}

    def client(self, *, timeout_s: int = 60) -> docker.DockerClient:
        """A client of it."""
        return docker.DockerClient(base_url=self.host, timeout=timeout_s)

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        assert self._process is not None, "not the tests' own engine"
        assert self._pidfile is not None
        self._pidfile.unlink(missing_ok=True)  # of one that was killed
        self._process.start(self._answers)

    def stop(self) -> None:
        """Stop it in order: it ends its containers."""
        assert self._process is not None, "not the tests' own engine"
        self._process.stop()

    def kill(self) -> None:
        """SIGKILL: its containers go on without it."""
        assert self._process is not None, "not the tests' own engine"
        self._process.kill()

    def pause(self) -> None:
        """It accepts connections and never answers, until `resume`."""
        assert self._process is not None, "not the tests' own engine"
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again."""
        assert self._process is not None, "not the tests' own engine"
        self._process.signal(signal.SIGCONT)

    def empty(self) -> None:
        """Remove every container, network and volume: of this engine all are the tests'."""
        client = self.client()
        for container in client.containers.list(all=True):
            with suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
        client.networks.prune()
        client.volumes.prune()
        client.close()

    def copy_images(self, data: Path) -> None:
        """A data folder for another engine, with this one's images and nothing else of it. In a second: layers are
        never written to, so their files are linked."""
        source = Path(self.client().info()["DockerRootDir"])
        self.pause()  # what it writes is whole for as long
        try:
            for name in ("buildkit", "containerd", "image", "plugins", "trust"):
                if (source / name).exists():
                    _copy(source / name, data / name)
            shutil.rmtree(data / "image" / "overlay2" / "layerdb" / "mounts", ignore_errors=True)
            layers = {path.read_text() for path in (data / "image").glob("overlay2/layerdb/sha256/*/cache-id")}
            for layer in sorted(layers):
                _copy(source / "overlay2" / layer, data / "overlay2" / layer, linked=True)
                link = (source / "overlay2" / layer / "link").read_text()
                (data / "overlay2" / "l").mkdir(exist_ok=True)
                (data / "overlay2" / "l" / link).symlink_to(f"../{layer}/diff")
        finally:
            self.resume()

    def build_images(self) -> str:
        """Build the product's images in it; answers what the build printed. Raises AssertionError with it."""
        command = host_network([sys.executable, _REPOSITORY / "images" / "build.py"])
        built = subprocess.run(
            command, env={**os.environ, **self.environment()}, capture_output=True, text=True, check=False, timeout=900
        )
        assert built.returncode == 0, f"images/build failed:\n{built.stdout}{built.stderr}"
        return built.stdout

    def _answers(self) -> bool:
        try:
            client = self.client(timeout_s=2)
            client.ping()
            client.close()
        except (docker.errors.DockerException, OSError):
            return False
        return True


@contextmanager
def running_engine() -> Iterator[Engine]:
    """The engine of this run: its own, or the one that TESTS_ENGINE names. Raises NoEngine with the reason."""
    if named := os.environ.get("TESTS_ENGINE"):
        yield Engine(named)
        return
    if os.geteuid() != 0:
        raise NoEngine("a Docker engine of the tests' own needs root")
    if not inside():
        raise NoEngine("a Docker engine of the tests' own needs the namespaces that ./tests/run makes")
    if shutil.which("dockerd") is None:
        raise NoEngine("no dockerd on this machine: install docker.io")
    with _slot() as data, _folder() as folder:
        engine = _engine(data, Path(folder))
        engine.start()
        try:
            engine.empty()
            yield engine
            engine.empty()
        finally:
            engine.resume()
            engine.stop()
            remove_cgroups(_cgroup(data))
            # What containers on the host's network leave mounted; the folder could not be deleted.
            subprocess.run(["umount", "--quiet", f"{folder}/exec/netns/default"], check=False)


def _copy(source: Path, target: Path, *, linked: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for how in ("-al", "-a") if linked else ("-a",):  # on another file system nothing can be linked
        if subprocess.run(["cp", how, source, target], capture_output=True, check=False).returncode == 0:
            return
        shutil.rmtree(target, ignore_errors=True)
    raise NoEngine(f"cannot copy {source} to {target}")


def _cgroup(data: Path) -> str:
    return f"tests-{data.name}"


def remove_cgroups(*names: str) -> None:
    """What containers that were killed left: empty groups, under every controller with version 1 of cgroups."""
    root = Path("/sys/fs/cgroup")
    for name in names:
        for top in (root / name, *root.glob(f"*/{name}")):
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()


def _folder() -> tempfile.TemporaryDirectory[str]:
    """In /tmp whatever TMPDIR says: paths of sockets are short."""
    return tempfile.TemporaryDirectory(prefix="ft-", dir="/tmp", ignore_cleanup_errors=True)


def _engine(data: Path, folder: Path) -> Engine:
    socket, pidfile = folder / "docker.sock", folder / "docker.pid"
    process = Process(
        dockerd(data, folder / "exec", socket, pidfile, _cgroup(data)),
        log=folder / "dockerd.log",
        environment={"DOCKER_HOST": ""},
        cwd=folder,
    )
    return Engine(f"unix://{socket}", process, pidfile)


def dockerd(data: Path, run: Path, socket: Path, pidfile: Path, cgroup: str) -> list[str]:
    """The command of an engine of the tests' own: `data` stays, `run` ends with it, its containers are in `cgroup`."""
    return [
        "dockerd",
        f"--data-root={data}",
        f"--exec-root={run}",
        f"--pidfile={pidfile}",
        f"--host=unix://{socket}",
        f"--bip={BRIDGE}",
        f"--default-address-pool={POOL}",
        f"--cgroup-parent=/{cgroup}",
        # The other driver asks systemd, which does not know the processes of another namespace.
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--storage-driver=overlay2",
        "--log-level=warn",
    ]


@contextmanager
def _slot() -> Iterator[Path]:
    """A data folder that no other run uses; the first is the one whose images are usually there."""
    root = cache()
    root.mkdir(parents=True, exist_ok=True)
    for number in range(SLOTS):
        with (root / f"engine-{number}.lock").open("w") as lock:
            if _locked(lock):
                yield root / f"engine-{number}"
                return
    raise NoEngine(f"{SLOTS} runs of the tests use the engines under {root} already")


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
