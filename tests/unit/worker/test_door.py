"""The door, against a real unix socket whose answers the test scripts."""

import asyncio
import contextlib

import pytest

from node.worker import door as door_module
from node.worker.door import Door


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch):
    monkeypatch.setattr(door_module, "BACKOFF_FIRST_S", 0.0)
    monkeypatch.setattr(door_module, "BACKOFF_MAX_S", 0.0)


class Node:
    """A node's socket that answers with the scripted replies in turn, then 200 for ever."""

    def __init__(self, path, *replies):
        self.path = path
        self.replies = list(replies)
        self.requests = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()
        self._tasks = set()
        self._writers = []

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()

    def hang_up(self):
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader, writer):
        self._writers.append(writer)
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
                self.asked.set()
                await self.release.wait()
                reply = self.replies.pop(0) if self.replies else answer(200)
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
        writer.close()


async def until(condition):
    while not condition():  # noqa: ASYNC110  the counter has no event, and the scenario is bounded
        await asyncio.sleep(0.001)


def answer(status, body=b"{}"):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def run(scenario, tmp_path, *replies):
    async def whole():
        async with Node(tmp_path / "agent.sock", *replies) as node:
            door = Door(tmp_path / "agent.sock", timeout_s=5)
            try:
                async with asyncio.timeout(60):
                    return await scenario(door, node)
            finally:
                await door.close()

    return asyncio.run(whole())


def test_a_confirmation_is_one_post_and_the_connection_is_kept(tmp_path):
    async def scenario(door, node):
        await door.durable()
        await door.durable()
        assert node.requests == ["POST /durable HTTP/1.1"] * 2
        assert node.connections == 1
        assert door.counts.confirmed == 2

    run(scenario, tmp_path)


def test_everyone_who_asks_while_a_call_is_in_flight_is_served_by_the_next_one(tmp_path):
    async def scenario(door, node):
        node.release.clear()
        first = asyncio.create_task(door.durable())
        await node.asked.wait()
        rest = [asyncio.create_task(door.durable()) for _ in range(50)]
        await asyncio.sleep(0)
        node.release.set()
        await asyncio.gather(first, *rest)
        assert len(node.requests) == 2

    run(scenario, tmp_path)


def test_who_asks_after_a_call_began_is_not_served_by_its_answer(tmp_path):
    async def scenario(door, node):
        node.release.clear()
        first = asyncio.create_task(door.durable())
        await node.asked.wait()
        second = asyncio.create_task(door.durable())
        await asyncio.sleep(0)
        node.release.set()
        await first
        assert not second.done()
        await second

    run(scenario, tmp_path)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        answer(503),
        answer(500, b"boom"),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
    ],
    ids=["cut", "503", "500", "no-http", "no-length", "too-long"],
)
def test_an_unknown_outcome_is_asked_again_until_it_is_definite(tmp_path, reply):
    async def scenario(door, node):
        await door.durable()
        assert len(node.requests) == 3
        assert (door.counts.unknown, door.counts.confirmed) == (2, 1)

    run(scenario, tmp_path, reply, reply)


def test_a_call_that_is_never_answered_is_given_up_and_its_late_answer_not_taken_for_the_next_ones(tmp_path):
    async def scenario(door, node):
        door._timeout_s = 0.05
        node.release.clear()
        waiting = asyncio.create_task(door.durable())
        await until(lambda: door.counts.unknown)
        node.release.set()
        await waiting
        assert node.connections >= 2

    run(scenario, tmp_path)


def test_a_node_that_is_not_there_yet_is_waited_for(tmp_path):
    async def scenario():
        door = Door(tmp_path / "late.sock")
        waiting = asyncio.create_task(door.durable())
        await until(lambda: door.counts.unknown)
        async with Node(tmp_path / "late.sock"):
            async with asyncio.timeout(60):
                await waiting
            await door.close()

    asyncio.run(scenario())


def test_a_caller_that_gives_up_disturbs_nobody_else(tmp_path):
    async def scenario(door, node):
        node.release.clear()
        impatient = asyncio.create_task(door.durable())
        patient = asyncio.create_task(door.durable())
        await node.asked.wait()
        impatient.cancel()
        node.release.set()
        await patient
        assert impatient.cancelled() or await asyncio.wait({impatient})

    run(scenario, tmp_path)


def test_closing_cancels_who_still_waits(tmp_path):
    async def scenario(door, node):
        node.release.clear()
        waiting = [asyncio.create_task(door.durable()) for _ in range(3)]
        await node.asked.wait()
        await door.close()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)

    run(scenario, tmp_path)


def test_a_connection_that_the_node_closed_while_idle_is_dialled_again_at_once(tmp_path):
    async def scenario(door, node):
        await door.durable()
        node.hang_up()
        await door.durable()
        assert (door.counts.confirmed, door.counts.unknown) == (2, 0)
        assert node.connections == 2

    run(scenario, tmp_path)
