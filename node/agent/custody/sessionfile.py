"""`session.json` on tmpfs: what a guard that comes back goes on with. It ends with the boot, as the promise does."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from node.agent.custody.session import Session
from node.bucket.errors import BadRecord
from node.bucket.records import Lease

NAME = "session.json"


@dataclass(frozen=True, slots=True)
class Pending:
    """A write that was begun and is not known to be answered: the same bytes under the same condition go out again."""

    lease: Lease
    etag: str | None
    started: float


@dataclass(frozen=True, slots=True)
class Saved:
    """Everything a guard must not forget. `lease` is our last confirmed write."""

    boot_id: str
    fleet_id: str
    session: Session
    lease: Lease | None
    pending: Pending | None


def save(folder: Path, saved: Saved) -> None:
    """Replace the file atomically. tmpfs needs no fsync: what a crash of the machine takes, it should take."""
    pending = saved.pending
    body = {
        "boot_id": saved.boot_id,
        "fleet_id": saved.fleet_id,
        "session": asdict(saved.session),
        "lease": saved.lease.encode().decode() if saved.lease else None,
        "pending": pending and {**asdict(pending), "lease": pending.lease.encode().decode()},
    }
    part = folder / f"{NAME}.part"
    part.touch(mode=0o600)
    part.write_text(json.dumps(body))
    part.replace(folder / NAME)


def forget(folder: Path) -> None:
    """No file is better than an old one: its ETag would look like somebody else's write."""
    with contextlib.suppress(OSError):
        (folder / NAME).unlink(missing_ok=True)


def load(folder: Path) -> Saved | None:
    """What was saved, or None if there is nothing that can be gone on with (none, damaged, another version's)."""
    try:
        raw: dict[str, Any] = json.loads((folder / NAME).read_bytes())
        pending = raw["pending"]
        return Saved(
            boot_id=raw["boot_id"],
            fleet_id=raw["fleet_id"],
            session=Session(**raw["session"]),
            lease=_lease(raw["lease"]),
            pending=pending and Pending(**{**pending, "lease": _lease(pending["lease"])}),
        )
    except (OSError, ValueError, TypeError, KeyError, BadRecord):
        return None


def _lease(text: str | None) -> Lease | None:
    return None if text is None else Lease.decode(text.encode(), key=NAME)
