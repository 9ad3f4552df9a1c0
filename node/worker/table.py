"""The table of the worker's API: from it requests are routed and validated, and /openapi.json is made."""

from __future__ import annotations

from node.worker import schemas
from node.worker.api import Api
from node.worker.operations import Operation, Parameter
from node.worker.wire import (
    parse_attribute,
    parse_bool,
    parse_cursor,
    parse_event_cursor,
    parse_limit,
    parse_name,
    parse_state,
    parse_time,
    parse_wait,
)

_READ = (422, 429, 503)
_WRITE = (400, 408, 413, 415, 422, 429, 503, 507)
_CHANGE = (404, 409, 422, 429, 503, 507)
_PAGE = (
    Parameter("state", schemas.STATE, parse_state, "Only runs in this state."),
    Parameter("workflow", schemas.NAME, parse_name, "Only runs of this workflow."),
    Parameter("attribute", schemas.ATTRIBUTE, parse_attribute, "Only runs with this attribute: name=value."),
    Parameter("created_after", schemas.MOMENT, parse_time, "Only runs started then or later."),
    Parameter("created_before", schemas.MOMENT, parse_time, "Only runs started before."),
    Parameter("closed_after", schemas.MOMENT, parse_time, "Only runs that ended then or later."),
    Parameter("closed_before", schemas.MOMENT, parse_time, "Only runs that ended before."),
    Parameter("parent", schemas.NAME, parse_name, "Only children of this run."),
    Parameter("queue", schemas.NAME, parse_name, "Only runs of this queue."),
    Parameter("schedule", schemas.NAME, parse_name, "Only runs of this schedule."),
    Parameter("paused", schemas.TRUTH, parse_bool, "Only runs that are paused, or only those that are not."),
    Parameter("limit", schemas.LIMIT, parse_limit, "How many runs at most.", 50),
    Parameter("cursor", schemas.CURSOR, parse_cursor, "Where to go on, as the page before said."),
)
_EVENTS = (
    Parameter("limit", schemas.EVENTS_LIMIT, parse_limit, "How many events at most.", 1000),
    Parameter("cursor", schemas.EVENT_CURSOR, parse_event_cursor, "Go on behind this event.", 0),
)
_WAIT = Parameter("wait", schemas.WAIT, parse_wait, "How long to wait for the end, at most a minute.", 0.0)
_SIGNAL_ID = Parameter("signal_id", schemas.NAME, parse_name, "Repeated with the same id it is the same signal.")
_TOLD = {202: schemas.SENT}
_SCHEDULE = {200: schemas.SCHEDULE}


def operations(api: Api) -> tuple[Operation, ...]:
    """All operations, each bound to its handler."""
    return (*_starts_and_reads(api), *_changes(api), *_schedules(api), *_queues(api), *_of_itself(api))


def _starts_and_reads(api: Api) -> tuple[Operation, ...]:
    """Starting runs and looking at them."""
    return (
        Operation(
            "start_run", "POST", "/v1/runs", "Start a run; safe to repeat with the same id.",
            api.start, {201: schemas.RUN, 200: schemas.RUN}, body=schemas.START, problems=(404, 409, *_WRITE),
            load="write",
        ),
        Operation(
            "list_runs", "GET", "/v1/runs", "Runs, newest first.",
            api.list_runs, {200: schemas.RUNS}, _PAGE, problems=_READ,
        ),
        Operation(
            "get_run", "GET", "/v1/runs/{id}", "One run.",
            api.get, {200: schemas.RUN}, problems=(404, *_READ),
        ),
        Operation(
            "get_history", "GET", "/v1/runs/{id}/history", "What the log says about a run, in pages.",
            api.history, {200: schemas.HISTORY}, _EVENTS, problems=(404, *_READ),
        ),
        Operation(
            "follow_run", "GET", "/v1/runs/{id}/events",
            "A run's history as server-sent events, up to its end, and of each that goes on as new for it;"
            " Last-Event-ID goes on behind that event.",
            api.events, {200: schemas.SENT_EVENT}, _EVENTS[1:], problems=(404, *_READ),
            load="stream", media_type="text/event-stream",
        ),
        Operation(
            "get_result", "GET", "/v1/runs/{id}/result", "The run once it has ended; 202 while it has not.",
            api.result, {200: schemas.RUN, 202: schemas.RUN}, (_WAIT,), problems=(404, *_READ), load="wait",
        ),
    )  # fmt: skip  # a table: one operation, one entry


def _changes(api: Api) -> tuple[Operation, ...]:
    """What is told to a run, and what it is asked."""
    return (
        Operation(
            "signal_run", "POST", "/v1/runs/{id}/signals/{name}", "Send a signal; the body is its payload.",
            api.signal, _TOLD, (_SIGNAL_ID,), body=schemas.ANY, body_required=False, problems=(404, 409, *_WRITE),
            load="write",
        ),
        Operation(
            "query_run", "POST", "/v1/runs/{id}/queries/{name}", "Ask the run's code; nothing is changed by it.",
            api.query, {200: schemas.ANSWER}, body=schemas.QUERY, body_required=False,
            problems=(404, 409, 500, *_WRITE),
        ),
        Operation(
            "cancel_run", "POST", "/v1/runs/{id}/cancel", "Ask a run to stop and clean up.",
            api.cancel, _TOLD, problems=_CHANGE, load="write",
        ),
        Operation(
            "terminate_run", "POST", "/v1/runs/{id}/terminate", "End a run at once; its code does not clean up.",
            api.terminate, _TOLD, body=schemas.TERMINATE, body_required=False, problems=(404, 409, *_WRITE),
            load="write",
        ),
        Operation(
            "pause_run", "POST", "/v1/runs/{id}/pause", "Hold a run: nothing new of it is begun.",
            api.pause, _TOLD, problems=_CHANGE, load="write",
        ),
        Operation(
            "resume_run", "POST", "/v1/runs/{id}/resume", "Let a paused run go on.",
            api.resume, _TOLD, problems=_CHANGE, load="write",
        ),
        Operation(
            "fork_run", "POST", "/v1/runs/{id}/fork", "Start a run from the first events of another.",
            api.fork, {201: schemas.RUN, 200: schemas.RUN}, body=schemas.FORK, body_required=False,
            problems=(404, 409, *_WRITE), load="write",
        ),
    )  # fmt: skip  # a table: one operation, one entry


def _schedules(api: Api) -> tuple[Operation, ...]:
    """The operations on schedules."""
    return (
        Operation(
            "list_schedules", "GET", "/v1/schedules", "Every schedule, by id.",
            api.plan("list_schedules"), {200: schemas.SCHEDULES}, problems=_READ,
        ),
        Operation(
            "put_schedule", "PUT", "/v1/schedules/{schedule}", "Make or change a schedule.",
            api.plan("put_schedule"), {201: schemas.SCHEDULE, **_SCHEDULE}, body=schemas.SCHEDULE_PUT,
            problems=(404, *_WRITE), load="write",
        ),
        Operation(
            "get_schedule", "GET", "/v1/schedules/{schedule}", "One schedule and what became of its newest times.",
            api.plan("get_schedule"), _SCHEDULE, problems=(404, *_READ),
        ),
        Operation(
            "delete_schedule", "DELETE", "/v1/schedules/{schedule}", "Remove a schedule; its runs stay.",
            api.plan("delete_schedule"), {200: schemas.SENT}, problems=_CHANGE, load="write",
        ),
        Operation(
            "pause_schedule", "POST", "/v1/schedules/{schedule}/pause", "Stop a schedule.",
            api.plan("pause_schedule"), _SCHEDULE, problems=_CHANGE, load="write",
        ),
        Operation(
            "resume_schedule", "POST", "/v1/schedules/{schedule}/resume", "Let a schedule go on from now.",
            api.plan("resume_schedule"), _SCHEDULE, problems=_CHANGE, load="write",
        ),
        Operation(
            "trigger_schedule", "POST", "/v1/schedules/{schedule}/trigger", "Start a run of a schedule now.",
            api.plan("trigger_schedule"), {201: schemas.SENT}, problems=_CHANGE, load="write",
        ),
    )  # fmt: skip  # a table: one operation, one entry


def _queues(api: Api) -> tuple[Operation, ...]:
    """The operations on queues."""
    return (
        Operation(
            "list_queues", "GET", "/v1/queues", "Every queue, its limits and how deep it is.",
            api.plan("list_queues"), {200: schemas.QUEUES}, problems=_READ,
        ),
        Operation(
            "put_queue", "PUT", "/v1/queues/{queue}", "Make a queue, or change its limits.",
            api.plan("put_queue"), {200: schemas.QUEUE}, body=schemas.QUEUE_PUT, problems=_WRITE, load="write",
        ),
    )  # fmt: skip  # a table: one operation, one entry


def _of_itself(api: Api) -> tuple[Operation, ...]:
    """What the process says of itself."""
    return (
        Operation(
            "healthz", "GET", "/healthz", "Whether the process answers.",
            api.healthz, {200: schemas.HEALTH}, problems=(422,), load="probe",
        ),
        Operation(
            "readyz", "GET", "/readyz", "Whether it serves runs.",
            api.readyz, {200: schemas.HEALTH}, problems=(422, 503), load="probe",
        ),
        Operation(
            "metrics", "GET", "/metrics", "Prometheus' text format.",
            api.metrics, {200: None}, problems=(422,), load="probe", media_type="text/plain",
        ),
        Operation(
            "openapi", "GET", "/openapi.json", "This document.",
            api.openapi, {200: {"type": "object"}}, problems=(422, 429),
        ),
    )  # fmt: skip  # a table: one operation, one entry
