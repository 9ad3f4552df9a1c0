"""What clients were told, and whether it can all be true. Pure: calls and rows in, sentences about what is wrong out.

A client numbers its writes to a tenant from 1. A read shows the highest number of each client. An answer names the
epoch that gave it. What was not answered, or not with yes, may have happened or not: nothing is concluded from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Kind = Literal["write", "read"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of `client` from `start` to `end` (seconds of the tests' own clock), by way of machine `via`.

    `ok`: it was answered with yes, by `epoch`. `number` is a write's; `seen` what a read showed.
    """

    client: str
    kind: Kind
    start: float
    end: float
    ok: bool
    epoch: int = 0
    number: int = 0
    seen: Mapping[str, int] = field(default_factory=dict)
    via: str = ""
    status: int = 0

    @property
    def row(self) -> str:
        """The name of the row that a write leaves."""
        return f"{self.client}.{self.number}"


@dataclass(frozen=True, slots=True)
class Slack:
    """From `start` to `end` reads by way of machine `via` may be old: its clock stood still with it, and it has not had
    the time of one renewal since."""

    via: str
    start: float
    end: float


def wrong(calls: Iterable[Call], rows: Sequence[str], *, rpo_zero: bool, slack: Sequence[Slack] = ()) -> list[str]:
    """Everything that is wrong with a tenant's history; `rows` are all that it has in the end, in their order."""
    told = sorted((c for c in calls), key=lambda c: c.end)
    said = [c for c in told if c.ok]
    strict = [c for c in said if c.kind == "write" or not _excused(c, slack)]
    found = [*_rows(told, rows), *_goes_back(said), *_two_at_once([c for c in strict if rpo_zero or c.kind == "read"])]
    acknowledged = [c for c in said if c.kind == "write"]
    if rpo_zero:
        return [*found, *_missing(acknowledged, set(rows)), *_unseen(strict)]
    return [*found, *_holes(acknowledged, set(rows))]


def lost(calls: Iterable[Call], rows: Sequence[str]) -> int:
    """How many acknowledged writes are not there in the end."""
    there = set(rows)
    return sum(c.ok and c.kind == "write" and c.row not in there for c in calls)


def longest_silence_s(calls: Iterable[Call], start: float, end: float) -> float:
    """The longest time from `start` to `end` without a write that was acknowledged."""
    moments = sorted(c.end for c in calls if c.ok and c.kind == "write" and start <= c.end <= end)
    return max((b - a for a, b in pairwise([start, *moments, end])), default=end - start)


def _excused(call: Call, slack: Sequence[Slack]) -> bool:
    return any(call.via == one.via and one.start <= call.end <= one.end for one in slack)


def _rows(told: Iterable[Call], rows: Sequence[str]) -> list[str]:
    """None is there twice, and none that nobody wrote."""
    sent = {c.row: c for c in told if c.kind == "write"}
    twice = sorted(row for row, count in Counter(rows).items() if count > 1)
    return [
        *(f"{_write(sent[row]) if row in sent else row} is there twice" for row in twice),
        *(f"row {row} is there and nobody wrote it" for row in sorted(set(rows) - set(sent))),
    ]


def _missing(acknowledged: Iterable[Call], rows: set[str]) -> list[str]:
    """With an rpo of 0 every acknowledged write is there."""
    return [f"{_write(c)} is missing" for c in acknowledged if c.row not in rows]


def _holes(acknowledged: Sequence[Call], rows: set[str]) -> list[str]:
    """With a longer one an epoch that is over may have lost its end, and nothing but its end."""
    last = max((c.epoch for c in acknowledged), default=0)
    found = []
    for epoch in sorted({c.epoch for c in acknowledged}):
        of = [c for c in acknowledged if c.epoch == epoch]
        gone = [c for c in of if c.row not in rows]
        if epoch == last:
            found += [f"{_write(c)} is missing, and its epoch is the last one" for c in gone]
            continue
        kept = max((c.start for c in of if c.row in rows), default=float("-inf"))
        found += [f"{_write(c)} is missing, and later ones of its epoch are there" for c in gone if c.end < kept]
    return found


def _goes_back(said: Iterable[Call]) -> list[str]:
    """What an epoch has shown it goes on showing."""
    found: list[str] = []
    reads = [c for c in said if c.kind == "read"]
    for epoch in sorted({c.epoch for c in reads}):
        found += _lower([c for c in reads if c.epoch == epoch], [c for c in reads if c.epoch == epoch])
    return found


def _unseen(said: Sequence[Call]) -> list[str]:
    """With an rpo of 0 a read shows what was acknowledged before it began, whoever answers."""
    return _lower([c for c in said if c.kind == "write"], [c for c in said if c.kind == "read"])


def _lower(before: Sequence[Call], reads: Sequence[Call]) -> list[str]:
    """Reads that show less of a client than what was known when they began. Both in the order of their ends."""
    found: list[str] = []
    known: dict[str, tuple[int, Call]] = {}
    waiting = list(before)
    for read in sorted(reads, key=lambda c: c.start):
        while waiting and waiting[0].end < read.start:
            earlier = waiting.pop(0)
            for client, number in _shows(earlier).items():
                if number > known.get(client, (0, earlier))[0]:
                    known[client] = (number, earlier)
        for client, (number, earlier) in known.items():
            if read.seen.get(client, 0) < number:
                found.append(
                    f"{_read(read)} shows {client} at {read.seen.get(client, 0)}, {_what(earlier)} had {number}"
                )
    return found


def _shows(call: Call) -> Mapping[str, int]:
    return call.seen if call.kind == "read" else {call.client: call.number}


def _two_at_once(said: Sequence[Call]) -> list[str]:
    """Once a later epoch has answered no earlier one does."""
    found: list[str] = []
    newest: Call | None = None
    waiting = list(said)
    for call in sorted(said, key=lambda c: c.start):
        while waiting and waiting[0].end < call.start:
            ended = waiting.pop(0)
            if newest is None or ended.epoch > newest.epoch:
                newest = ended
        if newest is not None and call.epoch < newest.epoch:
            found.append(f"{_what(call)} was answered by epoch {call.epoch} after {_what(newest)} by {newest.epoch}")
    return found


def _what(call: Call) -> str:
    return _write(call) if call.kind == "write" else _read(call)


def _write(call: Call) -> str:
    return f"the write {call.row} ({_where(call)})"


def _read(call: Call) -> str:
    return f"the read of {call.client} ({_where(call)})"


def _where(call: Call) -> str:
    said = f"epoch {call.epoch}" if call.ok else f"answered {call.status}"
    return f"{said} by way of {call.via or '?'}, {call.start:.3f}-{call.end:.3f}"
