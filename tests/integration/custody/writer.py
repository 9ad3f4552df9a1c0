"""A tenant's process that writes: `python -m … FILE ROWS RATE AUTOCHECKPOINT`; prints each second how many it has."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import apsw


def main() -> None:
    path, rows, rate, autocheckpoint = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    uid = path.parent.stat().st_uid
    db = apsw.Connection(str(path))
    os.chown(path, uid, uid)  # SQLite gives its other files to the same owner
    db.set_busy_timeout(20_000)
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "normal")
    db.pragma("wal_autocheckpoint", autocheckpoint)
    db.execute("create table if not exists r(i integer primary key, v blob)")
    print("ready", flush=True)
    began = time.monotonic()
    for n in range(rows):
        db.execute("insert into r(v) values(randomblob(3500))")
        time.sleep(max(0.0, began + (n + 1) / rate - time.monotonic()))
    print("done", flush=True)
    sys.stdin.read()  # its connection stays open until it is told to end
    db.close()


main()
