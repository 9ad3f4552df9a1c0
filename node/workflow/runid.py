"""Ids of runs."""

from __future__ import annotations

import re

from node.workflow.errors import InvalidInput

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


def check_run_id(run_id: str, field: str = "id") -> str:
    """The id itself. Raises InvalidInput, naming `field`, for text that is none."""
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidInput(
            field, "letters, digits, '.', '_', ':', '@', '-', beginning with one of the first two, at most 128"
        )
    return run_id
