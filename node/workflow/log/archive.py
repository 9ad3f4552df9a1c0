"""An ended run gives its id to a new one and is kept under another."""

from __future__ import annotations

from typing import Final

import apsw

_RENAMES: Final = (
    "UPDATE workflows SET id = :new WHERE id = :old",
    "UPDATE log SET workflow = :new WHERE workflow = :old",
    "UPDATE signals SET workflow = :new WHERE workflow = :old",
    "UPDATE attributes SET workflow = :new WHERE workflow = :old",
    "UPDATE firings SET workflow = :new WHERE workflow = :old",
    "UPDATE workflows SET parent = :new WHERE parent = :old",
    "UPDATE workflows SET forked_from = :new WHERE forked_from = :old",
    "UPDATE workflows SET continued_to = :new WHERE id = (SELECT continued_from FROM workflows WHERE id = :new)",
    # Who goes on for it knows the signals that it has had.
    "INSERT INTO signals SELECT :old, s.id, s.seq FROM signals s JOIN workflows w ON w.id = s.workflow"
    " WHERE w.id = :new AND w.state = 'continued'",
)


def archive(db: apsw.Connection, run_id: str, archived: str) -> None:
    """Rename an ended run and all that names it, in the caller's transaction. `archived` is free."""
    for sql in _RENAMES:
        db.execute(sql, {"old": run_id, "new": archived})
    db.execute("DELETE FROM timers WHERE workflow = ?", (run_id,))
    db.execute("DELETE FROM heartbeats WHERE workflow = ?", (run_id,))
