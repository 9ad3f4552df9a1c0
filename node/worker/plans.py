"""What the worker's HTTP API does with schedules and queues. Imported when it is first asked for either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node.worker import schemas
from node.worker.http import Request, Response, json_response
from node.worker.wire import fields_of, queue_options, time_text
from node.workflow import Engine
from node.workflow.core.queue import Queue
from node.workflow.core.schedule import Schedule
from node.workflow.serve.schedules import Scheduled


async def put_schedule(engine: Engine, request: Request) -> Response:
    """201 when it is new, 200 when it is changed or was there."""
    body = fields_of(request.body, schemas.SCHEDULE_PUT)
    options = {name: value for name, value in body.items() if name != "queue"} | queue_options(body.get("queue"))
    created = await engine.schedules.put(Schedule(request.path["schedule"], **options))
    return json_response(201 if created else 200, schedule_document(engine.schedules.get(request.path["schedule"])))


async def list_schedules(engine: Engine, _: Request) -> Response:
    """All of them."""
    return json_response(200, {"schedules": [schedule_document(each) for each in engine.schedules.list()]})


async def get_schedule(engine: Engine, request: Request) -> Response:
    """One, with its newest firings."""
    return json_response(200, schedule_document(engine.schedules.get(request.path["schedule"])))


async def delete_schedule(engine: Engine, request: Request) -> Response:
    """Its runs stay."""
    await engine.schedules.delete(request.path["schedule"])
    return json_response(200, {"id": request.path["schedule"]})


async def pause_schedule(engine: Engine, request: Request) -> Response:
    """Stops it."""
    await engine.schedules.pause(request.path["schedule"], True)
    return json_response(200, schedule_document(engine.schedules.get(request.path["schedule"])))


async def resume_schedule(engine: Engine, request: Request) -> Response:
    """Lets it go on from now."""
    await engine.schedules.pause(request.path["schedule"], False)
    return json_response(200, schedule_document(engine.schedules.get(request.path["schedule"])))


async def trigger_schedule(engine: Engine, request: Request) -> Response:
    """Starts a run now."""
    started = await engine.schedules.trigger(request.path["schedule"])
    return json_response(201, {"id": started.run_id})


async def put_queue(engine: Engine, request: Request) -> Response:
    """Makes it, or changes its limits."""
    body = fields_of(request.body, schemas.QUEUE_PUT)
    rate: Mapping[str, Any] = body.pop("rate", None) or {}
    queue = Queue(request.path["queue"], rate_limit=rate.get("limit"), rate_period_s=rate.get("period_s"), **body)
    await engine.put_queue(queue)
    return json_response(200, queue_document(queue, engine.depth(queue.name)))


async def list_queues(engine: Engine, _: Request) -> Response:
    """All of them, and how deep they are."""
    return json_response(200, {"queues": [queue_document(queue, depth) for queue, depth in engine.queues()]})


def schedule_document(each: Scheduled) -> dict[str, Any]:
    """A schedule as JSON."""
    schedule = each.schedule
    queue = {"name": schedule.queue, "key": schedule.queue_key, "priority": schedule.priority}
    return {
        "id": schedule.id,
        "workflow": schedule.workflow,
        "cron": schedule.cron,
        "time_zone": schedule.time_zone,
        "input": schedule.input,
        "overlap": schedule.overlap,
        "catchup_window_s": schedule.catchup_window_s,
        "jitter_s": schedule.jitter_s,
        "queue": queue if schedule.queue is not None else None,
        "attributes": dict(schedule.attributes),
        "paused": each.paused,
        "next_at": None if each.next_at is None else time_text(each.next_at),
        "note": each.note,
        "newest": [{"at": time_text(f.at), "outcome": f.outcome, "run": f.run_id} for f in each.newest],
    }


def queue_document(queue: Queue, depth: int) -> dict[str, Any]:
    """A queue as JSON."""
    rate = {"limit": queue.rate_limit, "period_s": queue.rate_period_s}
    return {
        "name": queue.name,
        "concurrency": queue.concurrency,
        "per_key": queue.per_key,
        "rate": rate if queue.rate_limit is not None else None,
        "paused": queue.paused,
        "depth": depth,
    }
