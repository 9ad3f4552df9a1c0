"""What is typed, read: durations, times, `K=V`. Raises CliError (exit 2) that shows what is accepted.

The controller checks a spec; here is only what the command line itself needs to understand.
"""

from __future__ import annotations

import datetime
import re

from fleet.cli.errors import USAGE, CliError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """`1s 5m 12h 7d` → seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise CliError(f"{text!r} is not a duration; write one like 1s, 5m, 12h or 7d", USAGE)
    return float(match[1]) * _SECONDS[match[2]]


def moment(text: str, now: float) -> float:
    """An RFC 3339 time with its zone, or a duration meaning that long ago → unix seconds."""
    if _DURATION.fullmatch(text):
        return now - duration(text)
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CliError(
            f"{text!r} is not a time; write one like 2026-11-21T06:00:00Z, or 5m for five minutes ago", USAGE
        )
    return at.timestamp()


def pair(text: str, option: str) -> tuple[str, str]:
    """`K=V` → (K, V)."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise CliError(f"{option} {text!r} is not KEY=VALUE", USAGE)
    return key, value
