"""The marker of a volume: root's own note of which epoch it holds, whose first snapshot is confirmed, and since when.

It is written when the epoch's first snapshot is in the bucket, not before; until then it says only where the volume
came from.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """`epoch` 0: nothing confirmed yet. `attempt` is the epoch that the volume was made for. `released`: its last byte
    was confirmed at `positions`, and nothing of it has run since. `foreign`: somebody else writes into its prefix."""

    tenant: str
    node: str
    epoch: int
    attempt: int
    boot_id: str
    origin: Literal["born", "restored", "carried"]
    released: bool = False
    positions: dict[str, str] = field(default_factory=dict)
    foreign: bool = False

    def confirmed(self) -> Marker:
        """After the first snapshot."""
        return replace(self, epoch=self.attempt)

    def running(self, boot_id: str) -> Marker:
        """Before its sidecar starts: from here on it may hold bytes that are nowhere else."""
        return replace(self, released=False, boot_id=boot_id, positions={})

    def at_rest(self, positions: dict[str, str]) -> Marker:
        """After a confirmed stop."""
        return replace(self, released=True, positions=positions)

    def stale(self) -> Marker:
        """Of a volume whose disk is behind: no epoch goes on with it, and nothing of it is missed."""
        return replace(self, epoch=0, released=True, positions={})

    @property
    def disposable(self) -> bool:
        """Whether all that the volume holds is in the bucket: it was released, or only ever restored."""
        return self.released or (self.epoch == 0 and self.origin == "restored")


FILE = "marker.json"


def read(home: Path) -> Marker | None:
    """The marker in a volume's root-only folder; None if there is none that can be read: nothing is known then."""
    try:
        raw = json.loads((home / FILE).read_text())
        if raw.pop("format", None) != FORMAT:
            return None
        return Marker(**raw)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write(home: Path, marker: Marker) -> None:
    """Replace the marker, durably: after a power cut it is the old one or the new one."""
    home.mkdir(mode=0o700, exist_ok=True)
    path = home / FILE
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as f:
        json.dump({"format": FORMAT, **asdict(marker)}, f)
        f.flush()
        os.fsync(f.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
