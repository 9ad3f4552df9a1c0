"""A store that ownership cannot rest on is refused before anything is written to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from node.agent.custody.lease import Machine
from node.agent.custody.registrar import Registrar
from node.agent.custody.session import Session
from node.bucket import keys
from node.bucket.errors import Conflict, Missing, Unsupported
from node.bucket.memory import MemoryStore
from node.bucket.records import Capacity


class Careless(MemoryStore):
    """Takes every write, whatever its condition says."""

    def create(self, key: str, body: bytes) -> str:
        try:
            return super().create(key, body)
        except Conflict:
            return super().replace(key, body, super().get(key).etag)


def test_a_machine_starts_no_session_on_a_store_without_conditional_writes(tmp_path: Path) -> None:
    store = Careless()
    machine = Machine("one", "http://127.0.0.1:1", Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1), {}, "1")
    registrar = Registrar(machine, "shared", lambda: store, tmp_path)
    with pytest.raises(Unsupported):
        asyncio.run(registrar.plan(Session(node="one", ttl_s=15, margin_s=3, mode="shared")))
    with pytest.raises(Missing):
        store.get(keys.FLEET)
