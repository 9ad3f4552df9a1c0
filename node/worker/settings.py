"""What the worker is told by its environment, read once and checked whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from node.workflow.values.dataclass import dataclass

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and says what it should be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One worker's settings.

    data: folder of the SQLite files. app: folder of the tenant's code. door: the node's unix socket, or None where the
    worker runs alone (a laptop): then nobody streams the files and it checkpoints itself. rpo_s: how many seconds of
    acknowledged work the loss of the machine may cost; 0 means that the door confirms before anything counts as done.
    """

    data: Path
    app: Path
    host: str
    port: int
    rpo_s: float
    door: Path | None

    @property
    def confirms(self) -> bool:
        """Whether "committed" only counts once the bucket has it."""
        return self.rpo_s == 0 and self.door is not None


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from `NODE_*` variables. Raises SettingsError naming the variable that is wrong."""
    door = environ.get("NODE_DOOR") or None
    rpo_s = parse_duration("NODE_RPO", environ.get("NODE_RPO", "0" if door else "1s"))
    if rpo_s == 0 and door is None:
        raise SettingsError(
            "NODE_RPO is 0 but NODE_DOOR is not set: nobody could confirm a write. "
            "Set NODE_DOOR to the node's socket, or NODE_RPO to a duration such as 1s"
        )
    return Settings(
        data=Path(environ.get("NODE_DATA") or "/data"),
        app=Path(environ.get("NODE_APP") or "/app"),
        # Alone on a laptop it stays on loopback; behind a gateway the container's network is the only way in.
        host=environ.get("NODE_HOST") or ("0.0.0.0" if door else "127.0.0.1"),  # noqa: S104  the container's own network
        port=_parse_port(environ.get("NODE_PORT") or "8080"),
        rpo_s=rpo_s,
        door=Path(door) if door else None,
    )


def parse_duration(name: str, text: str) -> float:
    """Seconds in `0`, `500ms`, `1s`, `5m`, `12h` or `7d`. Raises SettingsError naming `name`."""
    if text == "0":
        return 0.0
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", text, re.ASCII)
    if match is None:
        raise SettingsError(f"{name} is {text!r}: expected a duration such as 0, 500ms, 1s, 5m, 12h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]


def _parse_port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > 65535:
        raise SettingsError(f"NODE_PORT is {text!r}: expected a port between 0 and 65535 (0: any free one)")
    return int(text)
