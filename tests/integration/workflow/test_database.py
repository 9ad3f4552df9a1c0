"""A tenant's own database file, beside somebody else who writes to it: Litestream does."""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest

from node.workflow import open_database


def test_a_transaction_that_reads_first_is_not_refused_because_somebody_else_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_DATA", str(tmp_path))
    ours = open_database("docs.db")
    ours.execute("CREATE TABLE t (n INTEGER)")
    other = apsw.Connection(ours.filename)
    other.set_busy_timeout(5000)
    reading = threading.Event()

    def write() -> None:
        reading.wait(5)
        other.execute("INSERT INTO t VALUES (1)")

    writer = threading.Thread(target=write)
    writer.start()
    with ours:
        assert ours.execute("SELECT count(*) FROM t").get == 0
        reading.set()
        writer.join(0.2)  # it would have written by now if it could
        ours.execute("INSERT INTO t VALUES (2)")
    writer.join()
    assert sorted(n for (n,) in ours.execute("SELECT n FROM t")) == [1, 2]
