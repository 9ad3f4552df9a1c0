"""SQLite files of a tenant's own, next to the log and replicated like it."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import apsw

from node.workflow.errors import InvalidInput
from node.workflow.log.sqlite import Synchronous, connect
from node.workflow.values.dataclass import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(slots=True)
class _Settings:
    folder: Path | None = None
    synchronous: Synchronous = "full"
    checkpoint: bool = False


_settings = _Settings()
_lock = threading.Lock()
_commits = 0


def configure(*, folder: Path | None = None, synchronous: Synchronous = "full", checkpoint: bool = False) -> None:
    """Say, once per process and before the first `open_database`, where the files are and how durable a commit is.

    Without it: the folder of the environment variable `NODE_DATA`, else `/data`; `full`; no checkpoint.
    """
    _settings.folder, _settings.synchronous, _settings.checkpoint = folder, synchronous, checkpoint


def data_folder() -> Path:
    """Where the tenant's SQLite files are."""
    return _settings.folder or Path(os.environ.get("NODE_DATA", "/data"))


def open_database(name: str) -> apsw.Connection:
    """A connection to the SQLite file `name` (such as `docs.db`) in the data folder, made when it is not there.

    The name must be among the database files of the tenant's spec, else nobody replicates it. The connection has WAL,
    a busy timeout of 5 s and no checkpoint of its own; `with db:` is one write transaction; use one per thread. An
    activity that commits here has its result recorded only when that commit is as durable as the engine is told to
    make it. Raises InvalidInput for a name that is no plain file name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput("name", f"{name!r} is no plain file name (letters, digits, '.', '_', '-', at most 64)")
    db = connect(data_folder() / name, synchronous=_settings.synchronous, checkpoint=_settings.checkpoint)
    db.set_commit_hook(_count)
    return db


def commits() -> int:
    """How many commits connections of `open_database` have begun in this process: each is done a little later."""
    return _commits


def _count() -> bool:
    global _commits
    with _lock:
        _commits += 1
    return False
