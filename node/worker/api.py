"""What the worker's own HTTP API does: durable runs, health, metrics. `table.py` says where each of these answers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
from collections.abc import Awaitable, Callable
from functools import partial, wraps

from node.worker import schemas
from node.worker.door import Door
from node.worker.http import Request, Response, Stream, json_response
from node.worker.metrics import (
    CONTENT_TYPE,
    Family,
    RequestCounts,
    door_families,
    engine_families,
    refused_family,
    render,
    request_families,
)
from node.worker.pressure import Pressure
from node.worker.problem import Problem
from node.worker.wire import event_document, fields_of, parse_event_id, queue_options, run_document, to_problem
from node.workflow import Engine, Run
from node.workflow.errors import InvalidInput, WorkflowError

Handler = Callable[["Api", Request], Awaitable[Response | Stream]]
EVENTS_AT_ONCE = 100
HISTORY_BYTES = 4 << 20  # a page of a history is not much longer, however many events were asked for


def _serving(handler: Handler) -> Handler:
    """Answers 503 until the engine has recovered, and what the engine raises with its own status."""

    @wraps(handler)
    async def handle(api: Api, request: Request) -> Response | Stream:
        if not api.ready:
            raise Problem(503, "not-ready", "the engine recovers its runs; try again shortly", retryable=True)
        try:
            return await handler(api, request)
        except WorkflowError as error:
            raise to_problem(error) from error

    return handle


class Api:
    """The handlers. `ready` is set by whoever opens the engine; `stopping` ends long polls early."""

    def __init__(self, engine: Engine, counts: RequestCounts, door: Door | None, stopping: asyncio.Event) -> None:
        self.ready = False
        self.pressure = Pressure(lambda: engine.backlog)
        self._engine = engine
        self._counts = counts
        self._door = door
        self._stopping = stopping

    @_serving
    async def start(self, request: Request) -> Response:
        body = fields_of(request.body, schemas.START)
        self.pressure.check_backlog()
        started = await self._engine.start(
            body["workflow"],
            body.get("input"),
            body.get("id"),
            conflict=body.get("conflict", "reject_different"),
            attributes=body.get("attributes"),
            **queue_options(body.get("queue")),
        )
        run = run_document(self._engine.get(started.run_id))
        # Relative to /v1/runs, as the worker can't know under which prefix a gateway shows it.
        return json_response(201 if started.created else 200, run, (("location", f"runs/{started.run_id}"),))

    @_serving
    async def list_runs(self, request: Request) -> Response:
        query = {name: value for name, value in request.query.items() if value is not None}
        page = self._engine.list(attributes=query.pop("attribute", {}), **query)
        return json_response(200, {"runs": [run_document(run) for run in page.runs], "cursor": page.cursor})

    @_serving
    async def get(self, request: Request) -> Response:
        return json_response(200, run_document(self._engine.get(request.path["id"])))

    @_serving
    async def history(self, request: Request) -> Response:
        run_id, after, limit = request.path["id"], request.query["cursor"], request.query["limit"]
        texts, size, more = list[str](), 0, True
        while len(texts) < limit and size < HISTORY_BYTES and more:
            asked = min(limit - len(texts), EVENTS_AT_ONCE)
            events = self._engine.history(run_id, after, asked)
            found = [json.dumps(event_document(event), separators=(",", ":")) for event in events]
            texts += found
            size += sum(map(len, found))
            after = events[-1].seq if events else after
            more = len(events) == asked
        cursor = f'"{after}"' if more and texts else "null"
        body = f'{{"id":{json.dumps(run_id)},"events":[{",".join(texts)}],"cursor":{cursor}}}'
        return Response(200, body.encode())

    @_serving
    async def events(self, request: Request) -> Stream:
        from node.worker.follow import events  # most workers are never asked

        run = self._engine.get(request.path["id"])
        number, after = parse_event_id(request.last_event_id) or (run.incarnation, request.query["cursor"])
        return Stream(events(self._engine, run.id, after, number, self._stopping))

    @_serving
    async def result(self, request: Request) -> Response:
        run = await self._closed(request.path["id"], request.query["wait"])
        return json_response(200 if run.closed else 202, run_document(run))

    @_serving
    async def signal(self, request: Request) -> Response:
        await self._engine.signal(request.path["id"], request.path["name"], request.body, request.query["signal_id"])
        return json_response(202, {"id": request.path["id"]})

    @_serving
    async def cancel(self, request: Request) -> Response:
        await self._engine.cancel(request.path["id"])
        return json_response(202, {"id": request.path["id"]})

    @_serving
    async def terminate(self, request: Request) -> Response:
        body = fields_of({} if request.body is None else request.body, schemas.TERMINATE)
        await self._engine.terminate(request.path["id"], body.get("reason", ""))
        return json_response(202, {"id": request.path["id"]})

    @_serving
    async def pause(self, request: Request) -> Response:
        await self._engine.pause(request.path["id"])
        return json_response(202, {"id": request.path["id"]})

    @_serving
    async def resume(self, request: Request) -> Response:
        await self._engine.resume(request.path["id"])
        return json_response(202, {"id": request.path["id"]})

    @_serving
    async def fork(self, request: Request) -> Response:
        body = fields_of({} if request.body is None else request.body, schemas.FORK)
        self.pressure.check_backlog()
        try:
            started = await self._engine.fork(
                request.path["id"],
                seq=body.get("seq"),
                step=body.get("step"),
                new_id=body.get("id"),
                workflow=body.get("workflow"),
            )
        except InvalidInput as error:
            raise Problem(409, "no-such-fork", str(error), field=error.field) from error  # of this run, as it is
        run = run_document(self._engine.get(started.run_id))
        return json_response(201 if started.created else 200, run, (("location", f"../{started.run_id}"),))

    @_serving
    async def query(self, request: Request) -> Response:
        body = fields_of({} if request.body is None else request.body, schemas.QUERY)
        answer = await self._engine.query(request.path["id"], request.path["name"], *body.get("args", ()))
        return json_response(200, {"answer": answer})

    def plan(self, name: str) -> Callable[[Request], Awaitable[Response | Stream]]:
        """The handler of this name for schedules and queues."""

        @_serving
        async def handle(api: Api, request: Request) -> Response:
            plans = importlib.import_module("node.worker.plans")  # most workers are never asked
            answer: Response = await getattr(plans, name)(api._engine, request)
            return answer

        return partial(handle, self)

    async def healthz(self, _: Request) -> Response:
        return json_response(200, {"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        if self._stopping.is_set():
            raise Problem(503, "stopping", "the worker finishes its requests and stops", retryable=True)
        if not self.ready:
            raise Problem(503, "not-ready", "the engine recovers its runs; try again shortly", retryable=True)
        return json_response(200, {"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        return Response(200, render(self._families()).encode(), CONTENT_TYPE)

    async def openapi(self, _: Request) -> Response:
        from node.worker.openapi import openapi  # most workers are never asked
        from node.worker.table import operations

        queues = [queue.name for queue, _ in self._engine.queues()] if self.ready else []
        return json_response(200, openapi(operations(self), self._engine.workflows, queues))

    async def _closed(self, run_id: str, wait_s: float) -> Run:
        """The run once it has ended, or as it is when the wait is over or the worker stops."""
        run = self._engine.get(run_id)
        if run.closed or not wait_s:
            return run
        result = asyncio.ensure_future(self._engine.result(run_id, wait_s))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((result, stopping), return_when=asyncio.FIRST_COMPLETED)
            return result.result() if result.done() else self._engine.get(run_id)
        finally:
            for task in (result, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(result, stopping, return_exceptions=True)

    def _families(self) -> list[Family]:
        families = [
            Family("worker_ready", "gauge", "1 once the engine has recovered its runs.", [({}, int(self.ready))]),
            *request_families(self._counts),
            refused_family(self.pressure.refused),
        ]
        if self._door is not None:
            families += door_families(self._door)
        if self.ready:
            families += engine_families(self._engine)
        return families
