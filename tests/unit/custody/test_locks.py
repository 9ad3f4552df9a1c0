"""Reading the kernel's list of locks."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from node.agent.custody import locks

LISTED = """\
1: POSIX  ADVISORY  READ  100 08:01:77 124 124
2: POSIX  ADVISORY  WRITE 101 08:01:77 120 120
2: -> POSIX  ADVISORY  READ 102 08:01:77 123 123
3: POSIX  ADVISORY  READ  103 08:01:77 128 128
4: FLOCK  ADVISORY  WRITE 104 08:01:78 0 EOF
5: POSIX  ADVISORY  READ  105 fd:1a:79 0 EOF
6: POSIX  ADVISORY  READ  106 08:01:77 123 123
"""


def test_only_readers_locks_that_are_held_count() -> None:
    assert locks.readers(LISTED) == {(8, 1, 77): frozenset({100, 106}), (0xFD, 0x1A, 79): frozenset({105})}


def test_a_real_read_transaction_is_in_the_kernels_list(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    db = apsw.Connection(str(path))
    db.pragma("journal_mode", "wal")
    db.execute("create table t(a); insert into t values(1)")
    shm = path.with_name("app.db-shm").stat()
    place = (os.major(shm.st_dev), os.minor(shm.st_dev), shm.st_ino)

    def held() -> bool:
        return os.getpid() in locks.readers(Path("/proc/locks").read_text()).get(place, ())

    assert not held()
    db.execute("begin; select * from t").fetchall()
    assert held()
    db.execute("commit")
    assert not held()
    db.close()
