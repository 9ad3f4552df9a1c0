"""Runtime and Volumes for custody's tests: the real Litestream as a process with a root of its own, no engine.

Each sidecar and job gets a mount namespace and a chroot with `/data`, `/meta` and `/etc/litestream`, and the tenant's
uid: the same configuration, paths and rights as in a container.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from node.agent.ports import (
    AsideVolume,
    Container,
    JobResult,
    JobSpec,
    RuntimeFailed,
    SidecarSpec,
    Usage,
    Volume,
    WorkerSpec,
)

LITESTREAM = Path(sys.executable).with_name("litestream")
_MOUNTS = """
set -e
mount -t tmpfs none "$1"
mkdir -p "$1/data" "$1/meta" "$1/etc/litestream" "$1/tmp" "$1/bin"
chmod 1777 "$1/tmp"
mount --bind "$2" "$1/data"; mount --bind "$3" "$1/meta"; mount --bind "$4" "$1/etc/litestream"
touch "$1/bin/litestream"; mount --bind "$5" "$1/bin/litestream"
root="$1"; uid="$6"; shift 6
exec chroot --userspec="$uid:$uid" "$root" /bin/litestream "$@"
"""


@dataclass
class _Sidecar:
    spec: SidecarSpec
    log: Path
    process: subprocess.Popen[bytes] | None = None


class LocalRuntime:
    """Sidecars and jobs as processes of this machine. `calls` are the names of the calls so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sidecars: dict[str, _Sidecar] = {}
        self.calls: list[str] = []
        self.before: Callable[[str], None] = lambda call: None

    def _called(self, call: str) -> None:
        self.calls.append(call)
        self.before(call)

    def ensure(self) -> None:
        return

    def create(self, spec: WorkerSpec | SidecarSpec) -> str:
        self._called("create")
        assert isinstance(spec, SidecarSpec)
        name = f"{spec.tenant}-sidecar"
        old = self._sidecars.get(name)
        assert old is None or old.process is None or old.process.poll() is not None, "it still runs"
        self._sidecars[name] = _Sidecar(spec, self._folder / f"{name}.log")
        return name

    def start(self, name: str) -> Container:
        self._called("start")
        sidecar = self._sidecars[name]
        if sidecar.process is None or sidecar.process.poll() is not None:
            spec = sidecar.spec
            with sidecar.log.open("ab") as log:
                command = ["replicate", "-config", "/etc/litestream/litestream.yml"]
                sidecar.process = self._run(spec.volume, spec.config, spec.uid, command, log.fileno())
        return self._container(name)

    def stop(self, name: str, timeout_s: float) -> None:
        self._called("stop")
        process = self._process(name)
        if process is not None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
                return
            self.kill(name)

    def kill(self, name: str) -> None:
        self._called("kill")
        process = self._process(name)
        if process is not None:
            process.kill()
            process.wait()

    def remove(self, name: str) -> None:
        self._called("remove")
        process = self._process(name)
        if process is not None:
            process.kill()
            process.wait()
        self._sidecars.pop(name, None)

    def run_job(self, spec: JobSpec, timeout_s: float, progress: Callable[[str], None] | None = None) -> JobResult:
        self._called("run_job")
        process = self._run(spec.volume, spec.config, spec.uid, list(spec.args), subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            return JobResult(None, output.decode())
        return JobResult(process.returncode, output.decode())

    def containers(self) -> list[Container]:
        self._called("containers")
        return [self._container(name) for name in self._sidecars]

    def logs(self, name: str, *, tail: int | None, since: float | None, follow: bool) -> Iterator[bytes]:
        yield from self._sidecars[name].log.read_bytes().splitlines(keepends=True)

    def deaths(self) -> Iterator[Container]:
        yield from ()

    def allow(self, container: Container, cpus: float) -> None:
        return None

    def usage(self, name: str) -> Usage | None:
        return None

    def image_exists(self, image: str) -> bool:
        return True

    def signal(self, name: str, number: signal.Signals) -> None:
        """The test's own hand: a signal to a sidecar."""
        process = self._process(name)
        assert process is not None
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait()

    def close(self) -> None:
        """End everything that was started."""
        for sidecar in self._sidecars.values():
            if sidecar.process is not None and sidecar.process.poll() is None:
                sidecar.process.kill()
                sidecar.process.wait()

    def _process(self, name: str) -> subprocess.Popen[bytes] | None:
        sidecar = self._sidecars.get(name)
        process = sidecar.process if sidecar else None
        return process if process is not None and process.poll() is None else None

    def _container(self, name: str) -> Container:
        sidecar = self._sidecars[name]
        code = sidecar.process.poll() if sidecar.process else None
        return Container(
            name=name, tenant=sidecar.spec.tenant, role="sidecar", epoch=sidecar.spec.epoch,
            session=sidecar.spec.session, generation=0, running=self._process(name) is not None, exit_code=code,
        )  # fmt: skip

    def _run(self, volume: Volume, config: Path, uid: int, args: list[str], output: int) -> subprocess.Popen[bytes]:
        root = self._folder / "root"
        root.mkdir(exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"}}
        return subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _MOUNTS, "sh", root, volume.data,
             volume.meta, config, LITESTREAM, str(uid), *args],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip


class LocalVolumes:
    """Tenants' folders under one folder, no allowance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before: Callable[[str], None] = lambda call: None
        self.damaged = False

    def ensure(self, tenant: str, uid: int, disk_bytes: int) -> Volume:
        self.before("ensure")
        volume = self._volume(tenant)
        for part in (volume.data, volume.meta, volume.run):
            part.mkdir(parents=True, exist_ok=True)
            os.chown(part, uid, uid)
        return volume

    def find(self, tenant: str) -> Volume | None:
        volume = self._volume(tenant)
        if self.damaged and volume.data.exists():
            raise RuntimeFailed("its file system is damaged", reason="volume_damaged", retryable=False)
        return volume if volume.data.exists() else None

    def set_aside(self, tenant: str, label: str) -> Path:
        self.before("set_aside")
        aside = self.folder / "aside"
        aside.mkdir(exist_ok=True)
        there = aside / f"{tenant}-{label}-{len(list(aside.iterdir()))}"
        (self.folder / "t" / tenant).rename(there)
        return there

    def aside(self) -> list[AsideVolume]:
        folder = self.folder / "aside"
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        return [AsideVolume(p.name.split("-")[0], p, p.stat().st_ctime, 0) for p in there]

    def stopped(self, tenant: str) -> bool:
        return False

    def drop_aside(self, path: Path) -> None:
        shutil.rmtree(path)

    def discard(self, tenant: str) -> None:
        self.before("discard")
        shutil.rmtree(self.folder / "t" / tenant)

    def used_bytes(self, tenant: str) -> int:
        return 0

    def tenants(self) -> list[str]:
        return sorted(p.name for p in (self.folder / "t").iterdir())

    def _volume(self, tenant: str) -> Volume:
        at = self.folder / "t" / tenant
        return Volume(data=at / "data", meta=at / "meta", run=at / "run", marker=at / "marker")


@dataclass(frozen=True)
class FixedSession:
    """A session as the guard would tell it."""

    node: str = "n1"
    session: int = 1
    boot_id: str = "boot-1"
    alive: bool = True

    def live(self) -> bool:
        return self.alive

    def next(self) -> FixedSession:
        return replace(self, session=self.session + 1)
