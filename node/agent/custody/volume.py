"""Reading a volume at rest: its marker, each file's newest raw transaction, which files exist. Follows no link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from node.agent.custody import config, ltx, marker, wal
from node.agent.custody.claim import VolumeFacts
from node.agent.custody.locks import Place
from node.agent.ports import Volume

_PART_BYTES = 5 << 20
# Reading a longer one through takes longer than a restore.
_LONGEST_LOG_BYTES = 256 << 20
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def facts(volume: Volume, databases: Iterable[str]) -> VolumeFacts | None:
    """What a volume says of itself; None without a marker."""
    found = marker.read(volume.marker)
    if found is None:
        return None
    return VolumeFacts(
        node=found.node,
        epoch=found.epoch,
        boot_id=found.boot_id,
        local=local_positions(volume, databases),
        foreign=found.foreign,
    )


def raw_folder(volume: Volume, db: str) -> Path:
    """Where Litestream keeps a file's raw transactions. Only the sidecar can write there."""
    return volume.meta / config.meta_name(db) / "ltx" / "0"


def local_positions(volume: Volume, databases: Iterable[str]) -> dict[str, int]:
    """Each file's newest raw transaction on the volume; files without one are left out."""
    found = {}
    for db in databases:
        if txid := newest_raw(volume, db):
            found[db] = txid
    return found


def newest_raw(volume: Volume, db: str) -> int:
    """A file's newest raw transaction here, 0 for none."""
    try:
        names = [ltx.local_name(entry.name) for entry in os.scandir(raw_folder(volume, db))]
    except OSError:
        return 0
    return max((name[1] for name in names if name), default=0)


def raw_file(volume: Volume, db: str, txid: int) -> Path:
    """The file of one raw transaction."""
    return raw_folder(volume, db) / f"{ltx.hex16(txid)}-{ltx.hex16(txid)}.ltx"


def raw_written(volume: Volume, db: str, txid: int) -> float | None:
    """When Litestream copied a transaction out of the WAL, unix time; None if its file is gone."""
    try:
        return raw_file(volume, db, txid).lstat().st_mtime
    except OSError:
        return None


def etags(path: Path) -> frozenset[str]:
    """The ETags that a store gives a file that was put whole, or in parts of the usual size."""
    whole, parts = hashlib.md5(usedforsecurity=False), []
    with path.open("rb") as f:
        while part := f.read(_PART_BYTES):
            whole.update(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
    joined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return frozenset({whole.hexdigest(), f"{joined}-{len(parts)}"})


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """The descriptor of the folder that holds `name`, walked without following a link, and the last part."""
    fd = os.open(folder, _FOLDER)
    try:
        *parents, last = name.split("/")
        for parent in parents:
            deeper = os.open(parent, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = deeper
        yield fd, last
    finally:
        os.close(fd)


def size_bytes(volume: Volume, db: str) -> int | None:
    """A database file's size; None if there is no regular file of that name."""
    try:
        with _opened(volume.data, db) as (fd, name):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def lock_place(volume: Volume, db: str) -> Place | None:
    """Where the kernel's list names the locks on a file's log; None while nobody has it open."""
    try:
        with _opened(volume.data, f"{db}-shm") as (fd, name):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    return os.major(found.st_dev), os.minor(found.st_dev), found.st_ino


def upload_bytes(volume: Volume, databases: Iterable[str]) -> int:
    """The most that may be on its way to the bucket at once: every file, and its log."""
    return sum(size_bytes(volume, name) or 0 for db in databases for name in (db, f"{db}-wal"))


def is_empty(volume: Volume) -> bool:
    """Whether nothing was ever written under `data`. What cannot be read is not known to be empty."""
    try:
        return not any(True for _ in os.scandir(volume.data))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def existing(volume: Volume, databases: Iterable[str]) -> tuple[str, ...]:
    """Those of the declared files that are there and not of zero bytes."""
    return tuple(db for db in databases if size_bytes(volume, db))


def flush(volume: Volume, databases: Iterable[str]) -> None:
    """Put a volume at rest on its disk: a power cut from here on takes nothing back. Raises OSError."""
    for db in databases:
        for name in (db, f"{db}-wal"):
            with suppress(FileNotFoundError), _opened(volume.data, name) as (folder, last):
                _fsync(last, os.O_NOFOLLOW | os.O_NONBLOCK, folder)
                _fsync(".", os.O_DIRECTORY, folder)
        if txid := newest_raw(volume, db):
            _fsync(str(raw_file(volume, db, txid)), os.O_NOFOLLOW)
            _fsync(str(raw_folder(volume, db)), os.O_DIRECTORY)


def intact(volume: Volume, databases: Iterable[str]) -> bool:
    """After this machine went down: whether every file that was copied still holds all that was copied out of it."""
    return all(_intact(volume, db) for db in databases if newest_raw(volume, db))


def _intact(volume: Volume, db: str) -> bool:
    try:
        with raw_file(volume, db, newest_raw(volume, db)).open("rb") as raw:
            wanted = wal.reached(raw.read(wal.LTX_BYTES))
        if wanted is None or wanted.end > _LONGEST_LOG_BYTES:
            return False
        with _opened(volume.data, f"{db}-wal") as (folder, name):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(fd, "rb") as log:
            return stat.S_ISREG(os.fstat(fd).st_mode) and wal.whole_until(log, wanted)
    except OSError:
        return False


def _fsync(path: str, flags: int, folder: int | None = None) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
