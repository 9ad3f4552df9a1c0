"""Bodies of any size and length of time: nothing is buffered, nothing is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
from websockets.sync.client import connect

from tests.integration.gateway.conftest import Running
from tests.integration.gateway.parts import Upstream

PIECE = b"x" * 65536
PIECES = 1024


def test_events_arrive_while_the_answer_is_under_way(running: Running, acme: Upstream) -> None:
    with running.client.stream("GET", "/t/acme/events") as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b"data: first\n\n"
        assert running.gateway.in_flight("acme") == 1
        acme.gate.set()
        assert b"".join(pieces) == b"data: second\n\n"


def test_a_large_chunked_upload_arrives_whole(running: Running, acme: Upstream) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(PIECES):
            yield PIECE

    assert running.client.put("/t/acme/count", content=body()).json() == {"size": PIECES * len(PIECE)}
    assert running.client.post("/t/acme/count", content=PIECE * 100).json() == {"size": 100 * len(PIECE)}


def test_a_websocket_by_path_and_by_host_counts_as_in_flight(running: Running, acme: Upstream) -> None:
    for url in (f"ws://127.0.0.1:{running.port}/t/acme/echo", f"ws://acme.fleet.test:{running.port}/echo"):
        with (
            socket.create_connection(("127.0.0.1", running.port)) as s,
            connect(url, sock=s) as ws,
        ):
            for i in range(20):
                ws.send(f"{i}")
                assert ws.recv(30) == f"acme: {i}"
            assert running.gateway.in_flight("acme") == 1
        settled(running, "acme")


def test_a_request_that_comes_byte_by_byte_does_not_stop_the_others(running: Running, acme: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 30) as slow:
        slow.sendall(b"GET /t/acme/ HTTP/1.1\r\nHost: x\r\n")
        assert running.client.get("/t/acme/").status_code == 200
        slow.settimeout(60)
        assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_what_is_no_http_is_refused_and_harms_nobody(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 60) as s:
        s.sendall(b"\x00\x01\x02 nonsense\r\n\r\n")
        answer = s.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert running.client.get("/healthz").status_code == 200


def test_smuggled_lengths_are_refused(running: Running, acme: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 60) as s:
        s.sendall(
            b"POST /t/acme/count HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close\r\n\r\n0\r\n\r\nGET /t/beta/ HTTP/1.1\r\n\r\n"
        )
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 ") == 1


def settled(running: Running, tenant: str) -> None:
    """In flight comes back to none; looked at a bounded number of times."""
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for _ in range(3000):
            if running.gateway.in_flight(tenant) == 0:
                return
            client.get("/healthz")
            threading.Event().wait(0.01)
    raise AssertionError(f"{running.gateway.in_flight(tenant)} still in flight")
