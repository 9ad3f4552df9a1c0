"""The table of the worker's API: from it requests are routed and validated, and /openapi.json is made."""

from __future__ import annotations

from node.worker import schemas
from node.worker.api import Api
from node.worker.operations import Operation, Parameter
from node.worker.wire import parse_cursor, parse_limit, parse_name, parse_state, parse_wait

_READ = (422, 503)
_WRITE = (400, 408, 413, 415, 422, 503, 507)


def operations(api: Api) -> tuple[Operation, ...]:
    """All operations, each bound to its handler."""
    page = (
        Parameter("state", schemas.STATE, parse_state, "Only runs in this state."),
        Parameter("workflow", schemas.NAME, parse_name, "Only runs of this workflow."),
        Parameter("limit", schemas.LIMIT, parse_limit, "How many runs at most.", 50),
        Parameter("cursor", schemas.CURSOR, parse_cursor, "Where to go on, as the page before said."),
    )
    wait = Parameter("wait", schemas.WAIT, parse_wait, "How long to wait for the end, at most a minute.", 0.0)
    signal_id = Parameter("signal_id", schemas.NAME, parse_name, "Repeated with the same id it is the same signal.")
    return (
        Operation(
            "start_run", "POST", "/v1/runs", "Start a run; safe to repeat with the same id.",
            api.start, {201: schemas.RUN, 200: schemas.RUN}, body=schemas.START, problems=(404, 409, *_WRITE),
        ),
        Operation(
            "list_runs", "GET", "/v1/runs", "Runs, newest first.",
            api.list_runs, {200: schemas.RUNS}, page, problems=_READ,
        ),
        Operation(
            "get_run", "GET", "/v1/runs/{id}", "One run.",
            api.get, {200: schemas.RUN}, problems=(404, *_READ),
        ),
        Operation(
            "get_history", "GET", "/v1/runs/{id}/history", "Everything the log says about a run.",
            api.history, {200: schemas.HISTORY}, problems=(404, *_READ),
        ),
        Operation(
            "get_result", "GET", "/v1/runs/{id}/result", "The run once it has ended; 202 while it has not.",
            api.result, {200: schemas.RUN, 202: schemas.RUN}, (wait,), problems=(404, *_READ),
        ),
        Operation(
            "signal_run", "POST", "/v1/runs/{id}/signals/{name}", "Send a signal; the body is its payload.",
            api.signal, {202: schemas.SENT}, (signal_id,), body=schemas.ANY, body_required=False,
            problems=(404, 409, *_WRITE),
        ),
        Operation(
            "cancel_run", "POST", "/v1/runs/{id}/cancel", "Ask a run to stop and clean up.",
            api.cancel, {202: schemas.SENT}, problems=(404, 409, 422, 503, 507),
        ),
        Operation(
            "healthz", "GET", "/healthz", "Whether the process answers.",
            api.healthz, {200: schemas.HEALTH}, problems=(422,),
        ),
        Operation(
            "readyz", "GET", "/readyz", "Whether it serves runs.",
            api.readyz, {200: schemas.HEALTH}, problems=_READ,
        ),
        Operation(
            "metrics", "GET", "/metrics", "Prometheus' text format.",
            api.metrics, {200: None}, problems=(422,),
        ),
        Operation(
            "openapi", "GET", "/openapi.json", "This document.",
            api.openapi, {200: {"type": "object"}}, problems=(422,),
        ),
    )  # fmt: skip  # a table: one operation, one entry
