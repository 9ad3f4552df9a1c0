"""App code on this node: fetched from the bucket by content, unpacked once, mounted read-only into workers."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from node.agent.unpack import Escapes, unpack
from node.bucket import keys
from node.bucket.errors import Missing
from node.bucket.store import Store

LIMIT_BYTES = 256 << 20
# What it may unpack to: gzip can hide a thousand times its size.
UNPACKED_LIMIT_BYTES = 1 << 30


class BadApp(Exception):
    """The archive in the bucket is missing or not what its name promises."""


class Apps:
    """A cache of unpacked apps under `folder`, one read-only folder per SHA-256. Safe from many threads."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def fetch(self, sha256: str) -> Path:
        """The folder with the app's files, fetched if it is not here. Raises BadApp and the store's errors."""
        home = self._folder / sha256
        if home.is_dir():
            return home
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))
        try:
            self._download(sha256, work / "app.tar.gz")
            tree = work / "app"
            tree.mkdir(mode=0o755)
            _unpack(work / "app.tar.gz", tree, sha256)
            try:
                tree.rename(home)
            except OSError:
                if not home.is_dir():  # else another thread was first: the content is the same
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return home

    def _download(self, sha256: str, path: Path) -> None:
        try:
            self._store.get_file(keys.app(sha256), path)
        except Missing:
            raise BadApp(f"app {sha256[:12]} is not in the bucket; run fleet up --app again") from None
        with path.open("rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        if found != sha256:
            raise BadApp(
                f"app {sha256[:12]} in the bucket has another content ({found[:12]}); run fleet up --app again"
            )


def _unpack(archive: Path, tree: Path, sha256: str) -> None:
    try:
        unpack(archive, tree, limit_bytes=UNPACKED_LIMIT_BYTES)
    except ValueError:
        raise BadApp(f"app {sha256[:12]} unpacks to more than {UNPACKED_LIMIT_BYTES >> 20} MiB") from None
    except (tarfile.TarError, EOFError, Escapes) as e:
        raise BadApp(f"app {sha256[:12]} is not a sound archive: {e}") from None
    # Readable by any tenant's uid; mounted read-only, so the owner stays root.
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
