"""ledger: a tenant that keeps rows, and says that it has one only once it is durable. It misbehaves when asked to."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import os
import socket
import sys
import threading

import apsw
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from node.worker import Problem, durable
from node.workflow import open_database

BURN = "import time\nend = time.time() + 8\nwhile time.time() < end: pass"
LINE = "x" * 199 + "\n"
HIGHEST = """
SELECT substr(id, 1, instr(id, '.') - 1), max(CAST(substr(id, instr(id, '.') + 1) AS INTEGER))
FROM rows WHERE instr(id, '.') > 0 GROUP BY 1
"""

db = open_database("rows.db")
# No unique key: a row that came twice would be seen twice.
db.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, id TEXT NOT NULL, filling BLOB)")


if lives_s := os.environ.get("LEDGER_LIVES_S"):  # it crashes again and again
    end = threading.Timer(float(lives_s), os._exit, [1])
    end.daemon = True
    end.start()


@functools.cache
def epoch() -> int:
    """The epoch that this process writes for, as the node said when it was first asked."""
    connection = http.client.HTTPConnection("node")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(os.environ["NODE_DOOR"])
    connection.request("GET", "/identity")
    return int(json.loads(connection.getresponse().read())["epoch"])


async def post_row(request: Request) -> JSONResponse:
    """`POST /rows?id=ID&filling=BYTES`: one more row. With `&durable=no` the answer does not wait, and is a 202."""
    ident, filling = request.query_params["id"], int(request.query_params.get("filling", "0"))
    try:
        with db:
            db.execute("INSERT INTO rows (id, filling) VALUES (?, zeroblob(?))", (ident, filling))
    except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError) as e:
        raise Problem(507, "no-space", f"not stored: {type(e).__name__}: {e}", retryable=True) from e
    if request.query_params.get("durable") == "no":
        return JSONResponse({"id": ident, "epoch": await asyncio.to_thread(epoch)}, 202)
    await durable()
    return JSONResponse({"id": ident, "epoch": await asyncio.to_thread(epoch)})


async def get_rows(_: Request) -> JSONResponse:
    """`GET /rows`: how many there are, and their ids in order."""
    ids = [row[0] for row in db.execute("SELECT id FROM rows ORDER BY n")]
    return JSONResponse({"count": len(ids), "ids": ids})


async def get_highest(_: Request) -> JSONResponse:
    """`GET /highest`: of ids like `client.17` the highest number of each client."""
    seen = dict(db.execute(HIGHEST))
    return JSONResponse({"epoch": await asyncio.to_thread(epoch), "seen": seen})


async def post_trouble(request: Request) -> JSONResponse:
    """`POST /trouble?kind=forks|memory|log`: take everything there is of it."""
    kind = request.query_params["kind"]
    if kind == "forks":
        return JSONResponse({"forks": _fork()})
    if kind == "memory":
        hog = []
        while True:
            hog.append(bytearray(os.urandom(1 << 10)) * (8 << 10))
    amount = int(request.query_params["bytes"])
    await asyncio.to_thread(_flood, amount)
    return JSONResponse({"bytes": amount})


def _fork() -> int:
    """Children, each of which burns a processor for some seconds, until the kernel gives no more."""
    count = 0
    while count < 10_000:
        try:
            pid = os.fork()
        except OSError:
            return count
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", BURN])  # noqa: S606 - the bomb itself
        count += 1
    return count


def _flood(amount: int) -> None:
    for _ in range(amount // len(LINE)):
        sys.stdout.write(LINE)
    sys.stdout.flush()


routes = [
    Route("/rows", post_row, methods=["POST"]),
    Route("/rows", get_rows),
    Route("/highest", get_highest),
    Route("/trouble", post_trouble, methods=["POST"]),
]
