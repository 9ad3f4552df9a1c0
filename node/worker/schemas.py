"""JSON schemas of what the worker's API takes and gives; `/openapi.json` is made of them."""

from __future__ import annotations

from typing import Any

from node.workflow.run import STATES

Schema = dict[str, Any]

ANY: Schema = {"description": "Any JSON value."}
TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}
STATE: Schema = {"type": "string", "enum": list(STATES)}
OPTIONAL_OBJECT: Schema = {"type": ["object", "null"]}

RUN_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
RUN_ID: Schema = {"type": "string", "pattern": RUN_ID_PATTERN, "description": "Letters, digits and ._:@-, at most 128."}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 200}
CURSOR: Schema = {"type": "string", "pattern": r"^[0-9]{1,18}\.[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
WAIT: Schema = {"type": "string", "pattern": "^(0|[0-9]{1,4}(ms|s|m))$", "default": "0"}


def document(properties: dict[str, Schema], *optional: str) -> Schema:
    """A schema of an object with exactly these properties, required but for the optional ones."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


START = document({"workflow": NAME, "input": ANY, "id": RUN_ID}, "input", "id")
RUN = document(
    {
        "id": TEXT,
        "workflow": TEXT,
        "state": STATE,
        "input": ANY,
        "result": ANY,
        "error": OPTIONAL_OBJECT,
        "user_state": ANY,
        "waits": {"type": "array", "items": TEXT},
        "created_at": TIME,
        "updated_at": TIME,
    }
)
RUNS = document({"runs": {"type": "array", "items": RUN}, "cursor": {"type": ["string", "null"]}})
EVENT = document({"seq": {"type": "integer"}, "at": TIME, "kind": TEXT, "body": {"type": "object"}})
HISTORY = document({"id": TEXT, "events": {"type": "array", "items": EVENT}})
SENT = document({"id": TEXT})
HEALTH = document({"status": TEXT})
PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "retryable"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "retryable": {"type": "boolean"},
        "field": TEXT,
    },
}
