"""What runs are looked for by: a question, and the SQL that answers it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from node.workflow.errors import InvalidInput
from node.workflow.run import STATES, State

MAX_PAGE: Final = 1_000
MAX_ATTRIBUTES: Final = 32
LARGEST: Final = 2**53 - 1  # that every reader of JSON keeps as it is
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_LONGEST_VALUE: Final = 1_024


@dataclass(frozen=True, slots=True)
class Search:
    """Which runs are asked for; what is None does not matter. Times are unix seconds.

    `created_after` and `closed_after` are inclusive, `created_before` and `closed_before` are not. A run fits
    `attributes` when it has each of them with that value. Raises InvalidInput that names the field.
    """

    state: State | None = None
    workflow: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    closed_after: float | None = None
    closed_before: float | None = None
    parent: str | None = None
    queue: str | None = None
    schedule: str | None = None
    paused: bool | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in STATES:
            raise InvalidInput("state", f"one of {', '.join(STATES)}")
        check_attributes(self.attributes)

    def conditions(self, also: Sequence[str] = ()) -> tuple[list[str], list[Any]]:
        """SQL conditions on `workflows` and their values. Runs in `also` count as being in that state."""
        where, values = list[str](), list[Any]()
        if self.state is not None and also:
            where.append("(state = ? OR id IN (SELECT value FROM json_each(?)))")
            values += [self.state, json.dumps(also)]
        elif self.state is not None:
            where.append("state = ?")
            values.append(self.state)
        equal = (("name", self.workflow), ("parent", self.parent), ("queue", self.queue), ("schedule", self.schedule))
        for column, wanted in equal:
            if wanted is not None:
                where.append(f"{column} = ?")
                values.append(wanted)
        if self.paused is not None:
            where.append("paused = ?")
            values.append(int(self.paused))
        for comparison, time_s in (
            ("created_at >= ?", self.created_after),
            ("created_at < ?", self.created_before),
            ("closed_at >= ?", self.closed_after),
            ("closed_at < ?", self.closed_before),
        ):
            if time_s is not None:
                where.append(comparison)
                values.append(milliseconds(time_s))
        for name, value in self.attributes.items():
            where.append("id IN (SELECT workflow FROM attributes WHERE name = ? AND value = ?)")
            values += [name, value]
        return where, values


def milliseconds(time_s: float) -> int:
    """Unix milliseconds, kept within what SQLite can compare."""
    return round(1000 * min(max(time_s, -1e12), 1e12))


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a name or a value that can't be searched by."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidInput("attributes", f"at most {MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise InvalidInput(
                "attributes", f"{name!r:.80} is no name: letters, digits, '_', '.', '-', at most 64, no digit first"
            )
        problem = _problem(value)
        if problem is not None:
            raise InvalidInput(f"attributes.{name}", problem)


def _problem(value: Any) -> str | None:
    match value:
        case None | bool():
            return None
        case int() | float():
            return None if abs(value) <= LARGEST else f"a number from -{LARGEST} to {LARGEST}"
        case str():
            if len(value) > _LONGEST_VALUE:
                return f"at most {_LONGEST_VALUE} characters"
            return None if _is_text(value) else "not valid Unicode text"
        case _:
            return "text, a number, true or false"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
