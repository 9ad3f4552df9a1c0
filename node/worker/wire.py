"""Values to and from the wire: runs, times, errors, and the texts of query parameters."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from node.worker import schemas
from node.worker.problem import Problem, invalid
from node.worker.settings import parse_duration
from node.workflow import Event, Run
from node.workflow.errors import InvalidInput, WorkflowError
from node.workflow.run import STATES

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
    for name in schema["required"]:
        if name not in body:
            raise invalid(name, "missing")
    for name, value in body.items():
        _check_text(name, value, schema["properties"][name])
    return body


def _check_text(name: str, value: Any, schema: schemas.Schema) -> None:
    if schema.get("type") != "string":
        return
    if not isinstance(value, str):
        raise invalid(name, "expected text")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value, re.ASCII):
        raise invalid(name, f"expected {schema['description']}")
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        raise invalid(name, f"expected {schema['minLength']} to {schema['maxLength']} characters")


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
        "created_at": _time(run.created_at),
        "updated_at": _time(run.updated_at),
    }


def event_document(event: Event) -> dict[str, Any]:
    """An event of a run's log: its number, time, kind, and facts."""
    return {"seq": event.seq, "at": _time(event.at_ms / 1000), "kind": str(event.kind), "body": event.body}


def _time(unix_s: float) -> str:
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
