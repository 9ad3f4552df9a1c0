"""A new run from the first events of another: what they record is not done again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import apsw

from node.workflow.errors import InvalidInput
from node.workflow.values.events import ENDS, RESULTS, Event, Kind
from node.workflow.values.run import RunRow

_ENDS_A_STEP: Final = RESULTS | {Kind.TIMER_FIRED, Kind.CHILD_COMPLETED, Kind.CHILD_FAILED}
_CHILD_ENDS: Final = frozenset({Kind.CHILD_COMPLETED, Kind.CHILD_FAILED})


def cut(history: Sequence[Event], seq: int | None, step: int | None) -> int:
    """How many events a fork shares: up to event `seq`, or up to what `step` first came to (so that step is done
    again), or all but the end. Raises InvalidInput.
    """
    if seq is not None and step is not None:
        raise InvalidInput("step", "give either seq or step")
    longest = len(history) - (history[-1].kind in ENDS)
    count = longest
    if seq is not None:
        if not 1 <= seq <= longest:
            raise InvalidInput("seq", f"from 1 to {longest}, the newest event that is no end")
        count = seq
    elif step is not None:
        if not any(e.body.get("id") == step and e.kind not in _ENDS_A_STEP for e in history):
            raise InvalidInput("step", "the run has no such step")
        found = (e.seq for e in history if e.kind in _ENDS_A_STEP and e.body.get("id") == step)
        count = min(next(found, longest + 1) - 1, longest)
    shared = history[:count]
    if "queue" in shared[0].body and not any(e.kind == Kind.ADMITTED for e in shared):
        raise InvalidInput("seq", "the run still waits in its queue there")
    ended = {e.body["id"] for e in shared if e.kind in _CHILD_ENDS}
    open_children = [e.body["child"] for e in shared if e.kind == Kind.CHILD_STARTED and e.body["id"] not in ended]
    if open_children:
        raise InvalidInput("seq", f"child {open_children[0]!r} is open there and has one parent: take another event")
    return count


def copy(db: apsw.Connection, source: RunRow, new_id: str, count: int, workflow: str, whole: bool) -> None:
    """Make the run `new_id` of the first `count` events of `source`, in the caller's transaction. `whole`: these were
    all there are, and that is what was asked for.

    It is marked as having something to run, so whoever opens the file next goes on with it.
    """
    forked = "whole" if whole else "part"
    names = {"old": source.id, "new": new_id, "count": count, "name": workflow, "forked": forked}
    db.execute(
        "INSERT INTO log SELECT :new, seq, at, kind,"
        " CASE seq WHEN 1 THEN json_remove(json_set(body, '$.name', :name, '$.forked', :forked), '$.continued_from')"
        " ELSE body END FROM log"
        " WHERE workflow = :old AND seq <= :count",
        names,
    )
    db.execute("INSERT INTO signals SELECT :new, id, seq FROM signals WHERE workflow = :old AND seq <= :count", names)
    db.execute(
        "INSERT INTO workflows"
        " (id, name, state, input_hash, last_seq, active, waits, created_at, updated_at, forked_from)"
        " SELECT :new, :name, 'running', w.input_hash, :count, 1, '[]', l.at, l.at, :old FROM workflows w"
        " JOIN log l ON l.workflow = w.id AND l.seq = :count WHERE w.id = :old",
        names,
    )
    db.execute(
        "UPDATE payloads SET uses = uses + named.times FROM (SELECT field.atom AS hash, count(*) AS times FROM log,"
        " json_each(log.body) AS field WHERE log.workflow = :new AND field.key LIKE '%\\_ref' ESCAPE '\\' GROUP BY 1)"
        " AS named WHERE payloads.hash = named.hash",
        {"new": new_id},
    )


def was_forked_alike(
    row: RunRow, source: str, workflow: str, shared: Sequence[Event], found: Sequence[Event], whole: bool
) -> bool:
    """Whether a run that has the id already is the same fork; `found` is its log. It counts as made when the last event
    it shares was.
    """
    if row.facts.forked_from != source or row.name != workflow:
        return False
    if whole and found[0].body.get("forked", "whole") == "whole":
        return True  # the source may have gone on since, so how much it shares tells nothing
    if len(found) < len(shared) or row.created_at != shared[-1].at_ms:
        return False
    pairs = zip(shared[1:], found[1:], strict=False)
    return all((a.kind, json.dumps(a.body)) == (b.kind, json.dumps(b.body)) for a, b in pairs)
