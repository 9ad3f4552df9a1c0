"""The measurements' tenant: it stores a row, and says so once the row is as safe as its rpo asks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from node.worker import durable
from node.workflow import open_database

db = open_database("rows.db")
db.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")


async def put_row(request: Request) -> JSONResponse:
    """`POST /rows`: one row, one commit."""
    body = await request.body()
    with db:
        db.execute("INSERT INTO rows (body) VALUES (?)", (body,))
    row = db.last_insert_rowid()
    await durable()
    return JSONResponse({"id": row})


async def count(_: Request) -> JSONResponse:
    """`GET /rows`: how many there are."""
    return JSONResponse({"rows": db.execute("SELECT count(*) FROM rows").get})


routes = [Route("/rows", put_row, methods=["POST"]), Route("/rows", count)]
