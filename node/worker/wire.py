"""Values to and from the wire: runs, times, errors, and the texts of query parameters."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from node.worker import schemas
from node.worker.problem import Problem, invalid
from node.worker.settings import parse_duration
from node.workflow import Event, Run
from node.workflow.errors import InvalidInput, WorkflowError
from node.workflow.values.attributes import check_attributes
from node.workflow.values.run import STATES

LIST_MAX = int(schemas.LIMIT["maximum"])
WAIT_MAX_S = 60.0


def to_problem(error: WorkflowError) -> Problem:
    """The problem document for what the engine raised."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()
    field = error.field if isinstance(error, InvalidInput) else None
    return Problem(error.http_status, kind, str(error), field=field, retryable=error.retryable)


def fields_of(body: Any, schema: schemas.Schema) -> dict[str, Any]:
    """The body as an object that has the fields of a schema, texts checked. Raises Problem 422 naming the field."""
    if not isinstance(body, dict):
        raise invalid("body", "expected an object")
    for name in body:
        if name not in schema["properties"]:
            raise invalid(name, f"unknown field; there are {', '.join(schema['properties'])}")
    for name in schema.get("required", ()):
        if name not in body:
            raise invalid(name, "missing")
    return {name: _checked(name, value, schema["properties"][name]) for name, value in body.items()}


_TYPES: Final[dict[str, tuple[str, tuple[type, ...]]]] = {
    "string": ("text", (str,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "boolean": ("true or false", (bool,)),
    "object": ("an object", (dict,)),
    "array": ("a list", (list,)),
    "null": ("null", (type(None),)),
}


def _checked(name: str, value: Any, schema: schemas.Schema) -> Any:
    """The value, if it is what the schema says as far as the engine does not say it better."""
    types = schema.get("type", ())
    names = (types,) if isinstance(types, str) else tuple(types)
    if "integer" in names and isinstance(value, float) and value.is_integer():
        value = int(value)
    fits = any(isinstance(value, _TYPES[t][1]) and (t == "boolean" or not isinstance(value, bool)) for t in names)
    if names and not fits:
        raise invalid(name, "expected " + " or ".join(_TYPES[t][0] for t in names))
    if isinstance(value, str):
        _check_text(name, value, schema)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            raise invalid(name, f"expected {schema['minimum']} to {schema['maximum']}")
    elif isinstance(value, dict) and "required" in schema:
        return fields_of(value, schema)
    return value


def _check_text(name: str, value: str, schema: schemas.Schema) -> None:
    if "enum" in schema and value not in schema["enum"]:
        raise invalid(name, "expected one of " + ", ".join(map(str, schema["enum"])))
    if schema is schemas.RUN_ID and not re.fullmatch(schema["pattern"], value, re.ASCII):
        raise invalid(name, f"expected {schema['description']}")
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        raise invalid(name, f"expected {schema['minLength']} to {schema['maxLength']} characters")


def queue_options(queue: dict[str, Any] | None) -> dict[str, Any]:
    """What a start or a schedule is told of the queue in a body."""
    if queue is None:
        return {}
    return {"queue": queue["name"], "queue_key": queue.get("key"), "priority": queue.get("priority", 0)}


def run_document(run: Run) -> dict[str, Any]:
    """A run as JSON; times in RFC 3339."""
    return {
        "id": run.id,
        "workflow": run.workflow,
        "state": run.state,
        "input": run.input,
        "result": run.result,
        "error": run.error,
        "user_state": run.user_state,
        "waits": list(run.waits),
        "created_at": time_text(run.created_at),
        "updated_at": time_text(run.updated_at),
        "closed_at": None if run.closed_at is None else time_text(run.closed_at),
        "paused": run.paused,
        "parent": run.parent,
        "continued_from": run.continued_from,
        "continued_to": run.continued_to,
        "forked_from": run.forked_from,
        "schedule": run.schedule,
        "queue": None if run.queue is None else {"name": run.queue, "key": run.queue_key, "priority": run.priority},
        "attributes": dict(run.attributes),
    }


def event_document(event: Event) -> dict[str, Any]:
    """An event of a run's log: its number, time, kind, and facts."""
    return {"seq": event.seq, "at": time_text(event.at_ms / 1000), "kind": str(event.kind), "body": event.body}


def time_text(unix_s: float) -> str:
    """A time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_state(text: str) -> str:
    """A run's state. Raises ValueError."""
    if text not in STATES:
        raise ValueError("expected one of " + ", ".join(STATES))
    return text


def parse_name(text: str) -> str:
    """A workflow's name. Raises ValueError."""
    if not 1 <= len(text) <= 200:
        raise ValueError("expected 1 to 200 characters")
    return text


def parse_cursor(text: str) -> str:
    """Where a page begins. Raises ValueError."""
    if not re.fullmatch(schemas.CURSOR["pattern"], text, re.ASCII):
        raise ValueError("expected the cursor that the page before gave out")
    return text


def parse_event_cursor(text: str) -> int:
    """The number of an event of a history. Raises ValueError."""
    if not re.fullmatch(schemas.EVENT_CURSOR["pattern"], text, re.ASCII):
        raise ValueError("expected the cursor that the page before gave out, or the number of an event")
    return int(text)


def event_id(number: int, seq: int) -> str:
    """What an event of a run is called in a stream: its number in the log, and before it the run's incarnation, but for
    the first.
    """
    return f"{number}.{seq}" if number else str(seq)


def parse_event_id(text: str) -> tuple[int, int] | None:
    """The incarnation and the number of an event that a client has seen; None for what no stream has said."""
    found = re.fullmatch(r"(?:([0-9]{1,15})\.)?([0-9]{1,15})", text, re.ASCII)
    return None if found is None else (int(found[1] or 0), int(found[2]))


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            raise ValueError
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise ValueError("expected a time such as 2026-01-31T12:00:00Z") from None


def parse_bool(text: str) -> bool:
    """`true` or `false`. Raises ValueError."""
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


def parse_attribute(text: str) -> dict[str, Any]:
    """`name=value`: a number, `true`, `false`, or text (in quotes what would be one of them). Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("expected name=value")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = value
    attributes = {name: found if isinstance(found, str | int | float) else value}
    try:
        check_attributes(attributes)
    except InvalidInput as error:
        raise ValueError(error.problem) from None
    return attributes


def parse_limit(text: str) -> int:
    """How many runs a page has. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= LIST_MAX:
        raise ValueError(f"expected a whole number from 1 to {LIST_MAX}")
    return int(text)


def parse_wait(text: str) -> float:
    """Seconds to wait, cut to WAIT_MAX_S: the answer is 202 then, as for any wait too short. Raises ValueError."""
    if not re.fullmatch(schemas.WAIT["pattern"], text, re.ASCII):
        raise ValueError("expected a duration such as 500ms, 30s or 1m")
    return min(parse_duration("wait", text), WAIT_MAX_S)
