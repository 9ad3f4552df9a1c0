"""A run's history as server-sent events: what there is, then what comes, up to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

from node.worker.wire import event_document, event_id
from node.workflow import Engine, Event
from node.workflow.errors import WorkflowError
from node.workflow.values.events import Kind
from node.workflow.values.run import incarnation

ALIVE_S: Final = 15.0  # an empty comment, so that nobody on the way takes the stream for dead


async def events(
    engine: Engine, run_id: str, after: int, number: int, stopping: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    """The stream behind event `after` of the run's incarnation `number`, and of those that go on for it.

    It also ends when the worker stops: the client comes back with `Last-Event-ID`.
    """
    yield b"retry: 1000\n\n"
    following = engine.follow(run_id, after, number)
    coming: asyncio.Future[Sequence[Event]] = asyncio.ensure_future(_next(following))
    stop = asyncio.ensure_future(stopping.wait())
    try:
        while True:
            await asyncio.wait((coming, stop), timeout=ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                return
            if not coming.done():
                yield b":\n\n"
                continue
            found = coming.result()
            if not found:
                yield b"event: end\ndata: {}\n\n"
                return
            texts = []
            for event in found:
                if event.kind == Kind.STARTED:
                    number = incarnation(event.body.get("continued_from"))
                texts.append(_text(event, number))
            yield b"".join(texts)
            coming = asyncio.ensure_future(_next(following))
    except WorkflowError:
        return  # the engine closes, or the run is gone: the client comes back and is told so
    finally:
        for task in (coming, stop):
            task.cancel()
        await asyncio.gather(coming, stop, return_exceptions=True)


async def _next(following: AsyncIterator[Sequence[Event]]) -> Sequence[Event]:
    """The next events; none when there will be no more."""
    return await anext(following, None) or ()


def _text(event: Event, number: int) -> bytes:
    document = json.dumps(event_document(event), separators=(",", ":"))
    return f"id: {event_id(number, event.seq)}\nevent: {event.kind}\ndata: {document}\n\n".encode()
