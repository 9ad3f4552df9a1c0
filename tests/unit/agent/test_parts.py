"""The small parts around a tenant: app cache, secret files, memory, board, door, worker spec."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from node.agent import door as door_module
from node.agent import memory, secretfiles
from node.agent.apps import Apps, BadApp
from node.agent.door import Door, DoorHandlers, NotConfirmed
from node.agent.ports import Volume
from node.agent.report import Board
from node.agent.workerspec import worker_spec
from node.api import Assignment, NodeReport
from node.bucket import keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Capacity
from node.bucket.spec import TenantSpec

SPEC = TenantSpec(image="img", databases=("app.db",), env={"A": "1", "NODE_RPO": "mine"})
WANT = Assignment(tenant="acme", generation=1, want="up", spec=SPEC, secrets={"key": "s3cret"})


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def put_app(store: MemoryStore, tmp_path: Path, body: bytes, sha: str = "") -> str:
    sha = sha or hashlib.sha256(body).hexdigest()
    path = tmp_path / "upload"
    path.write_bytes(body)
    store.put_file(keys.app(sha), path)
    return sha


def test_an_app_is_unpacked_once_and_read_only_for_tenants(tmp_path: Path) -> None:
    store = MemoryStore()
    sha = put_app(store, tmp_path, archive((tarfile.TarInfo("app.py"), b"x = 1\n")))
    apps = Apps(store, tmp_path / "apps")
    home = apps.fetch(sha)
    assert (home / "app.py").read_text() == "x = 1\n"
    assert (home / "app.py").stat().st_mode & 0o777 == 0o644
    store.delete([keys.app(sha)])
    assert apps.fetch(sha) == home


def test_an_app_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    link = tarfile.TarInfo("out")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    sha = put_app(store, tmp_path, archive((link, b"")))
    with pytest.raises(BadApp):
        Apps(store, tmp_path / "apps").fetch(sha)
    assert not (tmp_path / "apps" / sha).exists()


def test_an_app_with_another_content_than_its_name_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    sha = put_app(store, tmp_path, archive((tarfile.TarInfo("app.py"), b"")), sha="0" * 64)
    with pytest.raises(BadApp, match="another content"):
        Apps(store, tmp_path / "apps").fetch(sha)


def test_an_app_that_is_not_in_the_bucket_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadApp, match="fleet up --app"):
        Apps(MemoryStore(), tmp_path / "apps").fetch("1" * 64)


def test_secrets_are_files_of_the_tenants_uid_alone(tmp_path: Path) -> None:
    home = secretfiles.write(tmp_path, "acme", os.getuid(), {"key": "s3cret"})
    assert home is not None
    assert (home / "key").read_text() == "s3cret"
    assert (home / "key").stat().st_mode & 0o777 == 0o400
    assert home.stat().st_mode & 0o777 == 0o500
    assert secretfiles.write(tmp_path, "acme", os.getuid(), {}) is None
    assert not home.exists()


def test_an_assignment_is_remembered_without_its_secrets(tmp_path: Path) -> None:
    memory.remember(tmp_path, WANT)
    assert "s3cret" not in (tmp_path / "t/acme/assignment.json").read_text()
    assert memory.recall(tmp_path) == {"acme": WANT.model_copy(update={"secrets": {}})}
    memory.forget(tmp_path, "acme")
    assert memory.recall(tmp_path) == {}


def test_what_the_node_tells_a_worker_wins_over_the_users_env(tmp_path: Path) -> None:
    volume = Volume(tmp_path, tmp_path, tmp_path, tmp_path)
    spec = worker_spec(
        WANT, epoch=2, session=3, uid=200000, volume=volume, app=None, secrets=None, image_prefix="fleet"
    )
    assert spec.env == {
        "A": "1",
        "NODE_TENANT": "acme",
        "NODE_DATA": "/data",
        "NODE_PORT": "8080",
        "NODE_RPO": "1s",
        "NODE_DOOR": "/run/fleet/agent.sock",
    }
    assert "s3cret" not in repr(spec)


def report(version: int, tenants: Any) -> NodeReport:
    capacity = Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1)
    return NodeReport(node="n", session=1, version=version, capacity=capacity, gateway_url="", tenants=tenants)


def test_a_reader_of_the_board_is_woken_by_a_change() -> None:
    async def go() -> NodeReport:
        board = Board(lambda: 5.0, report)
        reader = asyncio.create_task(board.read(0, 10))
        await asyncio.sleep(0)
        board.update("acme", state="running")
        return await reader

    got = asyncio.run(go())
    assert got.version == 1
    assert [(t.tenant, t.state, t.since) for t in got.tenants] == [("acme", "running", 5.0)]


def test_an_update_that_changes_nothing_wakes_nobody() -> None:
    async def go() -> int:
        board = Board(lambda: 5.0, report)
        board.update("acme", state="running")
        board.update("acme", state="running")
        return board.version

    assert asyncio.run(go()) == 1


def ask(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        s.settimeout(10)
        s.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < _length(answer):
            more = s.recv(65536)
            if not more:
                break
            answer += more
        return answer


def _length(answer: bytes) -> int:
    return int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


def serve(tmp_path: Path, request: bytes, durable: Any) -> tuple[bytes, list[float | None]]:
    wakes: list[float | None] = []

    async def wake_at(at: float | None) -> None:
        wakes.append(at)

    async def go() -> bytes:
        door = Door(tmp_path, os.getuid(), DoorHandlers(durable, wake_at, lambda: {"tenant": "acme"}))
        await door.open()
        answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", request)
        await door.close()
        return answer

    return asyncio.run(go()), wakes


async def confirmed() -> None: ...


async def unknown() -> None:
    raise NotConfirmed("acme: the bucket did not answer", reason="unconfirmed")


def post(path: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_the_door_says_durable_only_when_it_is(tmp_path: Path) -> None:
    assert serve(tmp_path, post("/durable"), confirmed)[0].startswith(b"HTTP/1.1 200")
    answer, _ = serve(tmp_path, post("/durable"), unknown)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"retryable": true' in answer


def test_the_door_records_when_to_wake(tmp_path: Path) -> None:
    answer, wakes = serve(tmp_path, post("/wake-at", b'{"at": 1800000000}'), confirmed)
    assert answer.startswith(b"HTTP/1.1 200")
    assert wakes == [1800000000]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"at": "soon"}', b'{"at": true}', b'{"at": -1}', b"[]", b'{"at": NaN}'])
def test_the_door_refuses_a_moment_that_is_none(tmp_path: Path, body: bytes) -> None:
    answer, wakes = serve(tmp_path, post("/wake-at", body), confirmed)
    assert answer.startswith(b"HTTP/1.1 400")
    assert wakes == []


def test_the_door_offers_nothing_else(tmp_path: Path) -> None:
    assert serve(tmp_path, b"GET /durable HTTP/1.1\r\nHost: n\r\n\r\n", confirmed)[0].startswith(b"HTTP/1.1 405")
    assert serve(tmp_path, b"GET /v1/state HTTP/1.1\r\nHost: n\r\n\r\n", confirmed)[0].startswith(b"HTTP/1.1 404")


def test_only_the_tenants_uid_can_open_its_door(tmp_path: Path) -> None:
    async def go() -> int:
        handlers = DoorHandlers(confirmed, lambda _: confirmed(), dict)
        door = Door(tmp_path, os.getuid(), handlers)
        await door.open()
        mode = (tmp_path / "agent.sock").stat().st_mode & 0o777
        await door.close()
        return mode

    assert asyncio.run(go()) == 0o600


def test_a_tenant_cannot_make_the_agent_keep_a_request_without_end(tmp_path: Path) -> None:
    def pour(path: Path) -> int:
        sent = 0
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
            s.settimeout(10)
            try:
                s.sendall(b"GET /identity HTTP/1.1\r\nX: ")
                while sent < 64 << 20:
                    s.sendall(b"x" * 65536)
                    sent += 65536
            except (BrokenPipeError, ConnectionResetError):
                pass
        return sent

    async def go() -> int:
        door = Door(tmp_path, os.getuid(), DoorHandlers(confirmed, lambda _: confirmed(), dict))
        await door.open()
        sent = await asyncio.to_thread(pour, tmp_path / "agent.sock")
        await door.close()
        return sent

    assert asyncio.run(go()) < 8 << 20


def test_a_tenant_cannot_take_all_of_the_agents_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "CONNECTIONS", 3)

    def connect(path: Path) -> tuple[list[bytes], bytes]:
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(6)]
        for s in sockets:
            s.settimeout(10)
            s.connect(str(path))
        refused = [s.recv(1) for s in sockets[3:]]
        for s in sockets:
            s.close()
        answer = b""
        for _ in range(1000):  # until the agent has seen that the others hung up
            with contextlib.suppress(ConnectionError):
                answer = answer or ask(path, b"GET /identity HTTP/1.1\r\nHost: n\r\n\r\n")
        return refused, answer

    async def go() -> tuple[list[bytes], bytes]:
        door = Door(tmp_path, os.getuid(), DoorHandlers(confirmed, lambda _: confirmed(), dict))
        await door.open()
        found = await asyncio.to_thread(connect, tmp_path / "agent.sock")
        await door.close()
        return found

    refused, answer = asyncio.run(go())
    assert refused == [b"", b"", b""]
    assert answer.startswith(b"HTTP/1.1 200")


async def foiled(_: float | None) -> None:
    raise NotConfirmed("acme: another node has it", reason="owned_elsewhere")


def test_a_moment_that_was_not_recorded_is_said_to_be_unknown(tmp_path: Path) -> None:
    async def go() -> bytes:
        door = Door(tmp_path, os.getuid(), DoorHandlers(confirmed, foiled, dict))
        await door.open()
        answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", post("/wake-at", b'{"at": null}'))
        await door.close()
        return answer

    assert asyncio.run(go()).startswith(b"HTTP/1.1 503")
