"""docsearch: a tenant that reads a folder of documents and answers searches. Copy this folder to start your own.

Three things make a server durable here, and this file shows each of them:

1. What must survive lives in SQLite, and only there: the files of /data that are named in `fleet up --db`.
2. Work that takes long is a workflow: its steps are recorded; after a crash it goes on behind the last finished one.
3. Nobody is told "done" before it is: `await durable()`.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import dataclass

import apsw
from library import ArchiveError, Batch, Counts, Library, QueryError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from node.worker import Problem, durable
from node.workflow import Context, Retry, activity, activity_info, open_database, workflow

ARCHIVE_MAX_BYTES = 512 << 20

# Opened when the code is loaded, so that the file exists, and travels to the bucket, from the first moment. Two
# connections: searches go on while a batch is written.
library = Library(writer=open_database("docs.db"), reader=open_database("docs.db"))


# --- the workflow: what is done, in which order -------------------------------------------------------------------


@dataclass(frozen=True)
class Ingest:
    """The input of the workflow. A step takes a batch of this many documents: fewer repeat less after a crash."""

    batch_documents: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.batch_documents <= 10_000:
            raise ValueError("batch_documents must be between 1 and 10000")


@workflow
async def ingest(ctx: Context, order: Ingest = Ingest()) -> Counts:
    """Moves every waiting document into the index, and returns how many that were."""
    total = Counts()
    # Asked again at the end: what was uploaded meanwhile is taken too, and so is what the loss of a machine took back.
    while batches := await ctx.run(plan, order.batch_documents):
        for batch in batches:
            total = total + await ctx.run(index_batch, batch)
            ctx.set_state(total)  # what GET /v1/runs/{id} shows meanwhile
    return total


# --- the activities: the steps that touch the world ----------------------------------------------------------------


@activity
def plan(batch_documents: int) -> list[Batch]:
    """The documents that wait, in batches; empty when all is done."""
    return library.plan(batch_documents)


@activity(retry=Retry(max_attempts=None, max_interval_s=30))  # a full disk is no reason to give up: space may come back
def index_batch(batch: Batch) -> Counts:
    """Indexes one batch. It may run more than once (a crash, a lost machine) and counts once: see Library.index."""
    step = activity_info()
    return library.index(batch, step.idempotency_key, step.attempt)


# --- the routes: served beside the worker's own /v1 -----------------------------------------------------------------


async def put_archive(request: Request) -> JSONResponse:
    """`PUT /documents/archive`: a tar file, compressed or not. Safe to repeat: nothing is stored twice."""
    try:
        # On disk, not in memory: a tenant is small. The file has no name, so that a crash leaves nothing behind.
        with tempfile.TemporaryFile(dir=library.folder) as archive:
            async for chunk in request.stream():
                archive.write(chunk)
                if archive.tell() > ARCHIVE_MAX_BYTES:
                    raise Problem(413, "archive-too-large", f"send at most {ARCHIVE_MAX_BYTES} bytes at once")
            archive.seek(0)
            received = await asyncio.to_thread(library.receive, archive)
    except ArchiveError as error:
        raise Problem(422, "not-an-archive", str(error), field="body") from error
    except (OSError, apsw.FullError) as error:
        raise Problem(
            507, "no-space", f"not all is stored: {error}; make room and send it again", retryable=True
        ) from error
    await durable(timeout_s=60)  # "stored" is only true once the machine may burn
    return JSONResponse(received)


async def search(request: Request) -> JSONResponse:
    """`GET /search?q=words&limit=10`: documents that have all the words, best first, each with a snippet."""
    limit = request.query_params.get("limit", "10")
    if not re.fullmatch("[1-9][0-9]?|100", limit):
        raise Problem(422, "invalid-input", "limit: expected a whole number from 1 to 100", field="limit")
    try:
        results = library.search(request.query_params.get("q", ""), int(limit))
    except QueryError as error:
        raise Problem(422, "invalid-input", f"q: {error}", field="q") from error
    return JSONResponse({"results": results})


async def stats(_: Request) -> JSONResponse:
    """`GET /stats`: how many documents are indexed, wait or were skipped, and how many steps ran, and ran twice."""
    return JSONResponse(library.stats())


routes = [
    Route("/documents/archive", put_archive, methods=["PUT"]),
    Route("/search", search),
    Route("/stats", stats),
]
