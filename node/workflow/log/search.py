"""What runs are looked for by: a question, and the SQL that answers it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from node.workflow.errors import InvalidInput
from node.workflow.values.attributes import check_attributes
from node.workflow.values.dataclass import dataclass
from node.workflow.values.run import STATES, State

MAX_PAGE: Final = 1_000


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
