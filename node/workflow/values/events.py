"""The vocabulary of the log: what is recorded, and the text it is recorded as.

A kind is either an *input* (something that happened: started, a result, a signal, a timer) or an *intent* (what the
code asked for, checked on replay). Intents follow the input that led to them, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from node.workflow.values.dataclass import dataclass
from node.workflow.values.payload import digest, encoder, parse

LARGE_PAYLOAD_BYTES: Final = 1024  # longer ones are stored once, by content hash, so that the log's pages stay small


class Kind(StrEnum):
    """What an event of the log says; the values are in the file and never change."""

    STARTED = "started"
    ACTIVITY_COMPLETED = "activity_completed"
    ACTIVITY_FAILED = "activity_failed"
    ATTEMPT_FAILED = "attempt_failed"
    TIMER_FIRED = "timer_fired"
    SIGNAL_RECEIVED = "signal_received"
    CANCEL_REQUESTED = "cancel_requested"
    ADMITTED = "admitted"
    TERMINATED = "terminated"
    PAUSED = "paused"
    RESUMED = "resumed"
    CHILD_COMPLETED = "child_completed"
    CHILD_FAILED = "child_failed"

    ACTIVITY_SCHEDULED = "activity_scheduled"
    TIMER_STARTED = "timer_started"
    SIGNAL_AWAITED = "signal_awaited"
    CHILD_STARTED = "child_started"
    SIGNAL_SENT = "signal_sent"
    CANCEL_SENT = "cancel_sent"
    PATCHED = "patched"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONTINUED = "continued"


INTENTS: Final = frozenset(
    {
        Kind.ACTIVITY_SCHEDULED,
        Kind.TIMER_STARTED,
        Kind.SIGNAL_AWAITED,
        Kind.CHILD_STARTED,
        Kind.SIGNAL_SENT,
        Kind.CANCEL_SENT,
        Kind.PATCHED,
        Kind.COMPLETED,
        Kind.FAILED,
        Kind.CANCELLED,
        Kind.CONTINUED,
    }
)
RESULTS: Final = frozenset({Kind.ACTIVITY_COMPLETED, Kind.ACTIVITY_FAILED, Kind.ATTEMPT_FAILED})
ENDS: Final = frozenset({Kind.COMPLETED, Kind.FAILED, Kind.CANCELLED, Kind.TERMINATED, Kind.CONTINUED})

PAYLOAD_KEY: Final[Mapping[str, str]] = {
    Kind.STARTED: "input",
    Kind.ACTIVITY_SCHEDULED: "args",
    Kind.ACTIVITY_COMPLETED: "result",
    Kind.SIGNAL_RECEIVED: "payload",
    Kind.CHILD_STARTED: "input",
    Kind.CHILD_COMPLETED: "result",
    Kind.SIGNAL_SENT: "payload",
    Kind.COMPLETED: "result",
    Kind.CONTINUED: "input",
}


_readable: Final = encoder(sort_keys=False)  # in the order given: who it is before its hash


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run's log. `body` has its payload inline. `at_ms` is unix time in milliseconds."""

    seq: int
    at_ms: int
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that has no place in the log yet: small `facts`, and at most one payload as JSON text."""

    kind: str
    facts: Mapping[str, Any]
    payload: str | None = None

    def event(self, seq: int, at_ms: int, text: str | None = None) -> Event:
        """The event as it will be read back from the log: through its text, so that live and replay see the same.

        `text` is what `inline` says, where that is known already.
        """
        return Event(seq, at_ms, self.kind, parse(self.inline() if text is None else text))

    def row(self) -> tuple[str, tuple[str, str] | None]:
        """The text of the log's `body`, and `(hash, text)` of a payload that is stored apart."""
        if self.payload is None or len(self.payload) <= LARGE_PAYLOAD_BYTES:
            return self.inline(), None
        hashed = digest(self.payload)
        return _readable({**self.facts, f"{PAYLOAD_KEY[self.kind]}_ref": hashed}), (hashed, self.payload)

    def inline(self) -> str:
        """The text of its body with its payload in it."""
        facts = _readable(self.facts)
        if self.payload is None:
            return facts
        comma = "," if self.facts else ""
        return f'{facts[:-1]}{comma}"{PAYLOAD_KEY[self.kind]}":{self.payload}}}'


def payload_reference(kind: str, body: Mapping[str, Any]) -> str | None:
    """The hash under which the payload of a stored body is kept, when it is kept apart."""
    key = PAYLOAD_KEY.get(kind)
    return body.get(f"{key}_ref") if key else None


def with_payload(kind: str, body: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """A stored body with its payload put back in place of the reference."""
    key = PAYLOAD_KEY[kind]
    return {**{k: v for k, v in body.items() if k != f"{key}_ref"}, key: value}
