"""What the generated workflows ask for, derived again from the log they left: a line a command, as it is written.

    python -m tests.integration.workflow.rederive FILE

It runs under any version of Python that the library runs under, and imports nothing that needs another one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from node.workflow.core.step import step
from node.workflow.log.sqlite import connect
from node.workflow.log.store import Store
from node.workflow.values.events import INTENTS
from tests.integration.workflow.generated import tree


def lines(path: Path) -> list[str]:
    """In the order of runs and events."""
    store = Store(path)
    found = []
    db = connect(path, query_only=True)
    runs = [row[0] for row in db.execute("SELECT id FROM workflows ORDER BY id")]
    db.close()
    for run_id in runs:
        history = list(store.events(run_id))
        for count, event in enumerate(history, 1):
            if event.kind not in INTENTS:
                asked = step(history[:count], tree, run_id, event.at_ms).commands
                found += [f"{run_id} {count} {command.draft().row()[0]}" for command in asked]
    return found


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(Path(sys.argv[1]))) + "\n")
