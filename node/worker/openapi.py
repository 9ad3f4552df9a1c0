"""The OpenAPI document of the worker's API, made from the table of its operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from node.worker.operations import Operation
from node.worker.problem import CONTENT_TYPE, TITLES
from node.worker.schemas import NAME, PROBLEM, RUN_REF, SCHEDULE_NAME, TEXT

DESCRIPTIONS = {200: "Done", 201: "Created", 202: "Not finished yet"}


def openapi(operations: Sequence[Operation], workflows: Sequence[str], queues: Sequence[str] = ()) -> dict[str, Any]:
    """An OpenAPI 3.1 document; `workflows` are the names that can be started, `queues` what there is."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    start = paths["/v1/runs"]["post"]
    forked, scheduled = paths["/v1/runs/{id}/fork"]["post"], paths["/v1/schedules/{schedule}"]["put"]
    for takes_names in (start, forked, scheduled):
        takes_names["requestBody"] = _by_name(takes_names["requestBody"], workflows, queues)
    links = {o.name: _link(o) for o in operations if "id" in o.parameters}
    for status in ("200", "201"):
        start["responses"][status]["links"] = links
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "A tenant's worker",
            "version": "1",
            "description": "Durable workflow runs on one SQLite file. Errors are problem documents (RFC 9457).",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM}},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*map(_path_parameter, operation.parameters), *map(_query_parameter, operation.query)],
        "responses": {
            str(status): _answer(status, schema, operation.media_type) for status, schema in operation.answers.items()
        }
        | {str(status): _problem(status) for status in operation.problems},
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": operation.body}},
        }
    return described


def _by_name(body: Any, workflows: Sequence[str], queues: Sequence[str]) -> dict[str, Any]:
    """A body with the names that it may have."""
    schema = body["content"]["application/json"]["schema"]
    fields = dict(schema["properties"])
    if workflows:
        fields["workflow"] = {**fields["workflow"], "enum": list(workflows)}
    if "queue" not in fields:
        pass
    elif queues:
        names = fields["queue"]["properties"]
        known = {**names, "name": {**names["name"], "enum": list(queues)}}
        fields["queue"] = {**fields["queue"], "properties": known}
    else:
        fields["queue"] = {"type": "null", "description": "There is no queue yet."}
    if "time_zone" in fields:
        from zoneinfo import available_timezones

        fields["time_zone"] = {**fields["time_zone"], "enum": sorted(available_timezones())}
    return {**body, "content": {"application/json": {"schema": {**schema, "properties": fields}}}}


def _link(operation: Operation) -> dict[str, Any]:
    """What can be done next with the run that a start answers."""
    return {"operationId": operation.name, "parameters": {"id": "$response.body#/id"}}


_PATH = {"id": RUN_REF, "schedule": SCHEDULE_NAME, "queue": NAME}


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": _PATH.get(name, {**TEXT, "minLength": 1}),
    }


def _query_parameter(parameter: Any) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _answer(status: int, schema: Any, media_type: str) -> dict[str, Any]:
    content = {media_type: {"schema": TEXT if schema is None else schema}}
    return {"description": DESCRIPTIONS[status], "content": content}


def _problem(status: int) -> dict[str, Any]:
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": TITLES[status], "content": content}
