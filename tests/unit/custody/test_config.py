"""Litestream's configuration, pinned whole, and its control socket's wire."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from node.agent.custody import config
from node.agent.custody.litestream import ControlSocket, SocketError, SyncFailed
from node.agent.custody.values import Credentials, ReplicaTarget

CREDENTIALS = Credentials("AKIA", "se$HOME/cret")
TARGET = ReplicaTarget("bucket", "fleet/", "http://127.0.0.1:9000", "eu-west-1", lambda prefix: CREDENTIALS)


def test_a_sidecar_s_configuration() -> None:
    text = config.sidecar(TARGET, {"app.db": "data/acme/e00000001/app.db"}, CREDENTIALS, rpo_s=0, retention_s=604800)
    assert b"$" not in text
    assert yaml.safe_load(text) == {
        "socket": {"enabled": True, "path": "/meta/ls.sock", "permissions": 0o600},
        "l0-retention-check-interval": "1h",
        "levels": [{"interval": "5m"}, {"interval": "1h"}],
        "snapshot": {"interval": "86400s", "retention": "691200s"},
        "dbs": [
            {
                "path": "/data/app.db",
                "meta-path": "/meta/db/app.db",
                "monitor-interval": "1s",
                "replica": {
                    "type": "s3",
                    "bucket": "bucket",
                    "path": "fleet/data/acme/e00000001/app.db",
                    "region": "eu-west-1",
                    "access-key-id": "AKIA",
                    "secret-access-key": "se$HOME/cret",
                    "endpoint": "http://127.0.0.1:9000",
                    "force-path-style": True,
                },
            }
        ],
    }


def test_a_sidecar_on_a_full_disk_makes_no_checkpoints() -> None:
    path = {"app.db": "data/acme/e00000001/app.db"}
    usual = yaml.safe_load(config.sidecar(TARGET, path, CREDENTIALS, rpo_s=0, retention_s=604800))
    full = yaml.safe_load(config.sidecar(TARGET, path, CREDENTIALS, rpo_s=0, retention_s=604800, checkpoints=False))
    assert set(full["dbs"][0]) - set(usual["dbs"][0]) == {"min-checkpoint-page-count", "checkpoint-interval"}


@pytest.mark.parametrize(("rpo", "seconds"), [(0, 1), (1, 1), (10, 5), (3600, 60)])
def test_uploads_follow_the_rpo(rpo: float, seconds: int) -> None:
    assert config.monitor_s(rpo) == seconds


def test_files_in_folders_have_meta_folders_that_cannot_meet() -> None:
    assert config.meta_name("a/b") != config.meta_name("a") + "/b"


def test_a_restore_names_its_transaction_and_never_a_time() -> None:
    args = config.restore_args("app.db", "0000000000000007")
    assert args[args.index("-txid") + 1] == "0000000000000007"
    assert "-timestamp" not in args


def test_credentials_are_in_no_repr() -> None:
    assert "se$HOME/cret" not in repr(CREDENTIALS) + repr(TARGET)


class Sidecar:
    """A socket that answers what the test says and remembers what it was sent."""

    def __init__(self, path: Path, answers: list[tuple[int, dict[str, object]]]) -> None:
        self.path, self.answers, self.bodies, self.connections = path, answers, list[dict[str, object]](), 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self.bodies.append(json.loads(await reader.readexactly(length) or b"{}"))
            if not self.answers:
                break
            status, answer = self.answers.pop(0)
            content = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content))
            await writer.drain()
        writer.close()

    async def __aenter__(self) -> Sidecar:
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        return self

    async def __aexit__(self, *why: object) -> None:
        self.server.close()


SYNCED: tuple[int, dict[str, object]] = (200, {"status": "synced", "txid": 3, "replicated_txid": 3})


def test_a_positive_timeout_is_never_sent_and_the_connection_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with Sidecar(tmp_path / "ls.sock", [SYNCED, SYNCED]) as sidecar:
            socket = ControlSocket(sidecar.path)
            assert (await socket.sync("/data/app.db", wait=True)).confirmed
            await socket.sync("/data/app.db", wait=False)
            assert sidecar.connections == 1
            assert sidecar.bodies == [
                {"path": "/data/app.db", "timeout": -1, "wait": True},
                {"path": "/data/app.db", "timeout": -1},
            ]
            socket.close()

    asyncio.run(main())


def test_a_missing_file_is_told_from_a_failure(tmp_path: Path) -> None:
    async def main() -> None:
        answers: list[tuple[int, dict[str, object]]] = [
            (500, {"error": "no position, waiting for data"}),
            (404, {"error": "database not found"}),
        ]
        async with Sidecar(tmp_path / "ls.sock", answers) as sidecar:
            socket = ControlSocket(sidecar.path)
            with pytest.raises(SyncFailed) as absent:
                await socket.sync("/data/app.db", wait=True)
            with pytest.raises(SyncFailed) as failed:
                await socket.sync("/data/app.db", wait=True)
            assert (absent.value.absent, failed.value.absent) == (True, False)
            socket.close()

    asyncio.run(main())


def test_a_connection_that_was_closed_while_idle_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        async with Sidecar(tmp_path / "ls.sock", [SYNCED]) as sidecar:
            socket = ControlSocket(sidecar.path)
            await socket.sync("/data/app.db", wait=True)
            with pytest.raises(SocketError):
                await socket.sync("/data/app.db", wait=True)
            assert sidecar.connections == 2
            socket.close()

    asyncio.run(main())


def test_a_socket_that_nobody_listens_on_is_said(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with pytest.raises(SocketError, match="does not answer"):
        asyncio.run(ControlSocket(deep / "ls.sock").info())
