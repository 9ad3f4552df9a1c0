"""Ids of runs."""

from __future__ import annotations

import re
import secrets

from node.workflow.errors import InvalidInput

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def check_run_id(run_id: str, field: str = "id") -> str:
    """The id itself. Raises InvalidInput, naming `field`, for text that is none."""
    if not _RUN_ID.fullmatch(run_id):
        raise InvalidInput(
            field, "letters, digits, '.', '_', ':', '@', '-', beginning with one of the first two, at most 128"
        )
    return run_id


def new_run_id(now_ms: int) -> str:
    """A fresh id that sorts by time: 48 bits of it and 80 random ones, 26 characters."""
    number = now_ms << 80 | secrets.randbits(80)
    return "".join(_BASE32[number >> shift & 31] for shift in range(125, -1, -5))
