"""What the guard tells the agent about the session: the value on the link between them, one JSON line."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from node.agent.custody.session import Mode, Session, State

SOCKET = "guard.sock"
GUARD_LOCK = "guard.lock"
AGENT_LOCK = "agent.lock"


def boottime() -> float:
    """Seconds since the machine booted, suspended time included: the clock of every deadline."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The kernel's id of this boot: a new one means that the machine went down."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class View:
    """The session as last heard. `session` is 0 before the first; `deadline_boottime_s` None while it does not bind."""

    node: str
    session: int
    seq: int
    state: State
    deadline_boottime_s: float | None
    reason: str
    mode: Mode
    boot_id: str

    def live(self) -> bool:
        """Whether tenants may run and acknowledge right now; to be asked again before each acknowledgement."""
        if self.state not in ("active", "stopping"):
            return False
        return self.deadline_boottime_s is None or boottime() < self.deadline_boottime_s

    def same_as(self, other: View) -> bool:
        """Whether nothing but a renewal lies between the two."""
        return replace(self, seq=0, deadline_boottime_s=None) == replace(other, seq=0, deadline_boottime_s=None)


def view_of(session: Session, boot: str) -> View:
    """What the agent is told of a session."""
    return View(
        node=session.node,
        session=session.session,
        seq=session.seq,
        state=session.state,
        deadline_boottime_s=session.deadline if session.enforced else None,
        reason=session.reason,
        mode=session.mode,
        boot_id=boot,
    )


def encode(view: View) -> bytes:
    """The line that carries a view."""
    return json.dumps(asdict(view), separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> View:
    """The view of a line; fields that a newer guard added are ignored."""
    raw: dict[str, Any] = json.loads(line)
    return View(**{name: raw[name] for name in View.__slots__})
