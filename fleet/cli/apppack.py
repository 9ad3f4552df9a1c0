"""A folder of code packed as an app: the same files always give the same archive, so it is uploaded once.

`requirements.lock` (pip's format, with hashes) is resolved into `vendor/` inside the archive: code travels with its
dependencies, and a node needs no package index.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.cli.errors import USAGE, CliError

LIMIT_BYTES = 256 << 20
SKIP = {"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
# The worker image runs Debian's Python; what is resolved must fit it, whatever runs this command.
WORKER_PYTHON = "3.11"


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive on disk: its content's name, its size in bytes, how many files it holds."""

    sha256: str
    path: Path
    size_bytes: int
    files: int


@contextmanager
def packed(folder: Path) -> Iterator[Packed]:
    """Pack a folder into a temporary archive. Raises CliError for one that cannot be an app."""
    root = _root(folder)
    with tempfile.TemporaryDirectory(prefix="fleet-app-") as work:
        vendor = _vendor(root, Path(work))
        members = list(_bounded(_members(root, root), folder))
        if vendor is not None:
            members += [(f"vendor/{name}", path) for name, path in _bounded(_members(vendor, vendor), vendor)]
        archive = Path(work, "app.tar.gz")
        with archive.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped:
            _write(zipped, sorted(members))
        size = archive.stat().st_size
        _bound(size, folder)
        with archive.open("rb") as f:
            sha = hashlib.file_digest(f, "sha256").hexdigest()
        yield Packed(sha, archive, size, len(members))


def _root(folder: Path) -> Path:
    if not folder.exists():
        raise CliError(f"--app: there is no folder {folder}", USAGE)
    if not folder.is_dir():
        raise CliError(f"--app: {folder} is not a folder", USAGE)
    if not (folder / "app.py").is_file():
        raise CliError(f"--app: {folder} has no app.py, which is what the worker imports", USAGE)
    return folder.resolve()


def _members(root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as e:
        raise CliError(f"--app: cannot read {folder}: {e.strerror}", USAGE) from None
    for entry in entries:
        path = Path(entry.path)
        name = str(path.relative_to(root))
        if entry.name in SKIP or (folder == root and entry.name == "vendor" and (root / "requirements.lock").exists()):
            continue
        if entry.is_symlink():
            _check_link(root, path, name)
        if entry.is_dir(follow_symlinks=False):
            yield from _members(root, path)
        elif entry.is_symlink() or entry.is_file():
            if not os.access(path, os.R_OK) and not entry.is_symlink():
                raise CliError(f"--app: cannot read {name}", USAGE)
            yield name, path
        else:
            raise CliError(f"--app: {name} is neither a file, a folder nor a link", USAGE)


def _check_link(root: Path, path: Path, name: str) -> None:
    target = path.readlink()
    if not path.resolve().is_relative_to(root):
        raise CliError(f"--app: {name} is a link that leaves the folder ({target}); copy the file", USAGE)
    if target.is_absolute():
        raise CliError(f"--app: {name} is a link by an absolute path ({target}); make it a relative one", USAGE)


def _bounded(members: Iterator[tuple[str, Path]], folder: Path) -> Iterator[tuple[str, Path]]:
    """The same, until it is more than fits: nothing that large is packed first."""
    total = 0
    for name, path in members:
        total += path.lstat().st_size
        _bound(total, folder)
        yield name, path


def _bound(size_bytes: int, folder: Path) -> None:
    if size_bytes > LIMIT_BYTES:
        raise CliError(
            f"--app: {folder} is larger than {LIMIT_BYTES >> 20} MiB; code belongs in it, data does not", USAGE
        )


def _write(out: gzip.GzipFile, members: list[tuple[str, Path]]) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in members:
            info = tar.gettarinfo(path, name)
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            if info.islnk():  # a second name of a file is a file: how it lies on this disk must not change the archive
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.lstat().st_size
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            if info.isreg():
                try:
                    with path.open("rb") as f:
                        tar.addfile(info, f)
                except OSError as e:
                    raise CliError(f"--app: cannot read {name}: {e.strerror}", USAGE) from None
            else:
                tar.addfile(info)


def _vendor(root: Path, work: Path) -> Path | None:
    lock = root / "requirements.lock"
    if not lock.exists():
        return None
    target = work / "vendor"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:"]
    command += ["--no-compile", "--no-deps", "--python-version", WORKER_PYTHON, "--implementation", "cp"]
    command += ["--target", str(target), "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CliError(
            f"--app: {lock} cannot be resolved: {done.stderr.strip()[-2000:]}; what needs more than wheels is an "
            "--image built FROM the worker's",
            USAGE,
        )
    return target
