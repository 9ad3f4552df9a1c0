"""What activities leave behind in a file that survives their process."""

from __future__ import annotations

import json
import os
from typing import Any

from node.workflow import activity_info


def effect(*values: Any) -> None:
    """One line that says which life ran which step with what, before the activity does anything else."""
    info = activity_info()
    line = json.dumps([int(os.environ["GENERATION"]), info.idempotency_key, values])
    descriptor = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)
