"""What goes into each image: the files of its build context, and the hash that names it."""

from __future__ import annotations

import hashlib
import io
import platform
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import certifi
from base import LOCAL_VERSION, BuildFailed, cache_dir

ROOT = Path(__file__).resolve().parent.parent
# Half of what the wheels weigh: what their extensions were compiled from.
_SOURCES = frozenset({".c", ".h", ".pyx", ".pxd", ".pyi"})
LOCK = ROOT / "deploy" / "locks" / "worker.txt"
_GLIBC = (36, 35, 34, 31, 28, 27, 24, 17)  # bookworm has 2.36: every older manylinux runs there

Files = Iterator[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its Debian packages (none: no Debian), the files that decide its hash, and those of its context."""

    name: str
    packages: tuple[str, ...]
    sources: Callable[[], Files]
    context: Callable[[], Files]

    @property
    def folder(self) -> Path:
        return ROOT / "images" / self.name

    def digest(self) -> str:
        """Twelve hex digits over everything that goes in, the way it is built and the machine's architecture."""
        seen = hashlib.sha256(f"{self.packages} {LOCAL_VERSION} {platform.machine()}".encode())
        for name, path in (("Dockerfile", self.folder / "Dockerfile"), *self.sources()):
            seen.update(f"\0{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
        return seen.hexdigest()[:12]

    def archive(self) -> io.BytesIO:
        """The build context as a tar, every file root's and with a fixed time, so that layers repeat."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, path in (("Dockerfile", self.folder / "Dockerfile"), *self.context()):
                info = tar.gettarinfo(str(path), name)
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = "root"
                info.mode = 0o755 if info.mode & 0o100 else 0o644
                with path.open("rb") as file:
                    tar.addfile(info, file)
        out.seek(0)
        return out


def _tree(folder: Path, prefix: str) -> Files:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{prefix}/{path.relative_to(folder)}", path


def _node() -> Files:
    yield "node/node/__init__.py", ROOT / "node" / "__init__.py"
    yield from _tree(ROOT / "node" / "workflow", "node/node/workflow")
    yield from _tree(ROOT / "node" / "worker", "node/node/worker")


def _worker_sources() -> Files:
    yield "worker.txt", LOCK
    yield from _node()


def _worker_context() -> Files:
    yield from _node()
    for name, path in _tree(_wheels(), "wheels"):
        if path.suffix not in _SOURCES and not name.startswith("wheels/bin/"):
            yield name, path


def _wheels() -> Path:
    """The locked wheels, unpacked for the image's Python on the host: pip needs no network in the build."""
    target = cache_dir() / f"wheels-{platform.machine()}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if target.exists():
        return target
    partial = target.with_name(f"{target.name}.partial")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--upgrade"]
    command += ["--target", str(partial), "--require-hashes", "--only-binary=:all:", "--python-version", "3.11"]
    command += [f"--platform=manylinux_2_{minor}_{platform.machine()}" for minor in _GLIBC]
    command += [f"--platform=manylinux2014_{platform.machine()}", "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"pip cannot fetch the worker's wheels of {LOCK}: {done.stderr.strip()[-800:]}")
    partial.rename(target)
    return target


def _sidecar() -> Files:
    yield "root/etc/ssl/certs/ca-certificates.crt", Path(certifi.where())
    yield "root/litestream", Path(sysconfig.get_path("scripts")) / "litestream"


def _gateway() -> Files:
    for name, path in _tree(ROOT / "images" / "gateway", "."):
        if path.name != "Dockerfile":
            yield name.removeprefix("./"), path


IMAGES = (
    Image("worker", ("python3",), _worker_sources, _worker_context),
    Image("sidecar", (), _sidecar, _sidecar),
    Image("gateway", ("haproxy",), _gateway, _gateway),
)
