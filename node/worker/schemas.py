"""JSON schemas of what the worker's API takes and gives; `/openapi.json` is made of them."""

from __future__ import annotations

from typing import Any

from node.workflow.serve.starts import CONFLICTS
from node.workflow.values.attributes import LARGEST
from node.workflow.values.run import STATES

Schema = dict[str, Any]

ANY: Schema = {"description": "Any JSON value."}
TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339, UTC."}
STATE: Schema = {"type": "string", "enum": list(STATES)}
OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
OPTIONAL_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
OPTIONAL_OBJECT: Schema = {"type": ["object", "null"]}

RUN_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$"
RUN_ID: Schema = {"type": "string", "pattern": RUN_ID_PATTERN, "description": "Letters, digits and ._:@-, at most 128."}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 200}
RUN_REF: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:@~-]{0,139}$", "description": "A run's id."}
CURSOR: Schema = {"type": "string", "pattern": r"^[0-9]{1,18}\.[A-Za-z0-9][A-Za-z0-9._:@~-]{0,139}$"}
EVENT_CURSOR: Schema = {"type": "string", "pattern": "^[0-9]{1,15}$"}
MOMENT: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339, with a time zone."}
ATTRIBUTE: Schema = {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}=[A-Za-z ]{0,99}$"}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}
EVENTS_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}
TRUTH: Schema = {"type": "boolean"}
WAIT: Schema = {"type": "string", "pattern": "^(0|[0-9]{1,4}(ms|s|m))$", "default": "0"}


def document(properties: dict[str, Schema], *optional: str) -> Schema:
    """A schema of an object with exactly these properties, required but for the optional ones."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def optional(properties: dict[str, Schema]) -> Schema:
    """A schema of an object of which every property may be left out, and it itself as well."""
    return {**document(properties, *properties), "type": ["object", "null"]}


QUEUE_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 200, "description": "A queue that there is."}
IN_QUEUE = {
    **document(
        {
            "name": QUEUE_NAME,
            "key": {"type": ["string", "null"], "minLength": 1, "maxLength": 200},
            "priority": {"type": "integer", "minimum": -100, "maximum": 100, "description": "The lowest goes first."},
        },
        "key",
        "priority",
    ),
    "type": ["object", "null"],
}
ATTRIBUTES: Schema = {
    "type": "object",
    "description": "What a run can be found by.",
    "maxProperties": 32,
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"},
    "additionalProperties": {
        "anyOf": [
            {"type": "string", "maxLength": 1024, "pattern": r"^[^\u0000]*$"},
            {"type": "number", "minimum": -LARGEST, "maximum": LARGEST},
            {"type": ["boolean", "null"]},
        ]
    },
}
CONFLICT: Schema = {
    "type": "string",
    "enum": list(CONFLICTS),
    "description": "What happens when a run has this id already.",
}
START = document(
    {"workflow": NAME, "input": ANY, "id": RUN_ID, "conflict": CONFLICT, "queue": IN_QUEUE, "attributes": ATTRIBUTES},
    "input",
    "id",
    "conflict",
    "queue",
    "attributes",
)
TERMINATE = optional({"reason": {"type": "string", "minLength": 0, "maxLength": 1000}})
FORK = optional(
    {
        "seq": {"type": "integer", "minimum": 1, "maximum": LARGEST, "description": "The last event to share."},
        "step": {"type": "integer", "minimum": 1, "maximum": LARGEST, "description": "The step to do again."},
        "id": RUN_ID,
        "workflow": NAME,
    }
)
QUERY = optional({"args": {"type": "array"}})
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
        "closed_at": OPTIONAL_TIME,
        "paused": {"type": "boolean"},
        "parent": OPTIONAL_TEXT,
        "continued_from": OPTIONAL_TEXT,
        "continued_to": OPTIONAL_TEXT,
        "forked_from": OPTIONAL_TEXT,
        "schedule": OPTIONAL_TEXT,
        "queue": OPTIONAL_OBJECT,
        "attributes": {"type": "object"},
    }
)
RUNS = document({"runs": {"type": "array", "items": RUN}, "cursor": {"type": ["string", "null"]}})
EVENT = document({"seq": {"type": "integer"}, "at": TIME, "kind": TEXT, "body": {"type": "object"}})
SENT_EVENT = document(
    {"id": TEXT, "event": TEXT, "data": TEXT, "retry": {"type": "integer"}}, "id", "event", "data", "retry"
)
HISTORY = document({"id": TEXT, "events": {"type": "array", "items": EVENT}, "cursor": OPTIONAL_TEXT})
ANSWER = document({"answer": ANY})
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

# Schedules and queues. A cron expression may be more than its pattern here says, which names no day that no month has.
OVERLAP: Schema = {
    "type": "string",
    "enum": ["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"],
}
CRON: Schema = {
    "type": "string",
    "description": "Five fields, or six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly.",
    "pattern": r"^(@(hourly|daily|weekly|monthly|yearly)"
    r"|(\*|[1-5]?[0-9]) (\*|1?[0-9]) (\*|[1-9]|1[0-9]) (\*|[1-9]|1[0-2]) (\*|[0-6]))$",
}
SCHEDULE_NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
SCHEDULE_PUT = document(
    {
        "workflow": NAME,
        "cron": CRON,
        "time_zone": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Such as Europe/Vienna."},
        "input": ANY,
        "overlap": OVERLAP,
        "catchup_window_s": {"type": "number", "minimum": 10, "maximum": 366 * 86400},
        "jitter_s": {"type": "number", "minimum": 0, "maximum": 86400},
        "queue": IN_QUEUE,
        "attributes": ATTRIBUTES,
    },
    "time_zone", "input", "overlap", "catchup_window_s", "jitter_s", "queue", "attributes",
)  # fmt: skip  # what may be left out, in one line
FIRING = document({"at": TIME, "outcome": TEXT, "run": OPTIONAL_TEXT})
SCHEDULE = document(
    {
        "id": TEXT, "workflow": TEXT, "cron": TEXT, "time_zone": TEXT, "input": ANY, "overlap": OVERLAP,
        "catchup_window_s": {"type": "number"}, "jitter_s": {"type": "number"}, "queue": OPTIONAL_OBJECT,
        "attributes": {"type": "object"}, "paused": {"type": "boolean"}, "next_at": OPTIONAL_TIME,
        "note": OPTIONAL_TEXT, "newest": {"type": "array", "items": FIRING},
    }
)  # fmt: skip  # a table
SCHEDULES = document({"schedules": {"type": "array", "items": SCHEDULE}})
_BOUND: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": 1_000_000}
RATE: Schema = {
    **document(
        {
            "limit": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
            "period_s": {"type": "number", "minimum": 0.001, "maximum": 366 * 86400},
        }
    ),
    "type": ["object", "null"],
    "description": "Runs that begin within any so many seconds.",
}
QUEUE_PUT = document(
    {"concurrency": _BOUND, "per_key": _BOUND, "rate": RATE, "paused": {"type": "boolean"}},
    "concurrency", "per_key", "rate", "paused",
)  # fmt: skip  # what may be left out, in one line
QUEUE = document(
    {
        "name": TEXT, "concurrency": {"type": ["integer", "null"]}, "per_key": {"type": ["integer", "null"]},
        "rate": OPTIONAL_OBJECT, "paused": {"type": "boolean"}, "depth": {"type": "integer"},
    }
)  # fmt: skip  # a table
QUEUES = document({"queues": {"type": "array", "items": QUEUE}})
