"""How every connection of the library is opened, and the log's schema.

No connection ever lets SQLite checkpoint by itself: a replicator reads the WAL, and pages that are checkpointed away
behind its back are lost to it. Where nobody replicates, `checkpoint=True` has the writing connection do it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final, Literal, TypeAlias

import apsw

from node.workflow.errors import ForeignFile, SchemaTooNew

Synchronous: TypeAlias = Literal["full", "normal"]

APPLICATION_ID: Final = 0x776C6F67  # "wlog", in the file's header
BUSY_TIMEOUT_MS: Final = 5_000
CHECKPOINT_PAGES: Final = 1_000


def connect(
    path: Path, *, synchronous: Synchronous = "full", checkpoint: bool = False, query_only: bool = False
) -> apsw.Connection:
    """Open (and create) the SQLite file at `path`: WAL, no automatic checkpoint, a busy timeout of 5 s.

    `checkpoint=True` checkpoints after commits once the WAL has 1,000 pages: only where nothing replicates the file.
    """
    db = apsw.Connection(str(path))
    db.set_busy_timeout(BUSY_TIMEOUT_MS)
    db.execute("PRAGMA wal_autocheckpoint=0")  # before anything is written
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={synchronous}")
    db.execute("PRAGMA foreign_keys=ON")
    # `with db:` takes the write lock at its start: one that reads first and then writes fails at once, whatever the
    # busy timeout, when somebody else (a replicator is one) has written in between.
    db.transaction_mode = "IMMEDIATE"
    if query_only:
        db.transaction_mode = "DEFERRED"
        db.execute("PRAGMA query_only=ON")
    if checkpoint:
        db.set_wal_hook(_checkpoint)
    else:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return db


def _checkpoint(db: apsw.Connection, name: str, pages: int) -> int:
    if pages >= CHECKPOINT_PAGES:
        db.wal_checkpoint(name, apsw.SQLITE_CHECKPOINT_PASSIVE)
    return apsw.SQLITE_OK


def migrate(db: apsw.Connection, path: Path) -> None:
    """Bring the log's schema to the newest version, each step in a transaction.

    Raises SchemaTooNew or ForeignFile, having changed nothing.
    """
    found = version(db, path)
    for number, sql in migrations()[found:]:
        with db:  # one process serves the file, so nobody else migrates it in between
            db.execute(sql)
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            db.execute(f"PRAGMA user_version={number}")


def version(db: apsw.Connection, path: Path) -> int:
    """The schema version of an open file, 0 for an empty one. Raises SchemaTooNew or ForeignFile."""
    found, known = int(db.pragma("user_version")), len(migrations())
    # Litestream makes tables of its own in a new file, and may be there before the first migration.
    tables = db.execute("SELECT count(*) FROM sqlite_schema WHERE tbl_name NOT GLOB '_litestream_*'").get
    if tables and db.pragma("application_id") != APPLICATION_ID:
        raise ForeignFile(str(path))
    if found > known:
        raise SchemaTooNew(str(path), found, known)
    return found


@functools.cache
def migrations() -> tuple[tuple[int, str], ...]:
    """Number and text of every migration, in order."""
    folder = Path(__file__).with_name("migrations")  # importlib.resources would cost every tenant a megabyte
    files = [f for f in folder.iterdir() if re.match(r"\d{4}_.*\.sql$", f.name)]
    ordered = sorted(files, key=lambda f: f.name)
    return tuple((int(f.name[:4]), f.read_text(encoding="utf-8")) for f in ordered)
