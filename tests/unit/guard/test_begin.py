"""A guard that is asked to leave while it prepares a session writes none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from node.agent.custody import session as rules
from node.agent.custody.guard import Guard, Place
from node.agent.custody.lease import Machine
from node.agent.custody.registrar import Plan
from node.agent.custody.session import Session
from node.bucket import keys
from node.bucket.memory import MemoryStore
from node.bucket.records import Capacity


def test_who_is_asked_to_leave_meanwhile_begins_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, nothing = MemoryStore(), cast(Any, None)
    machine = Machine("one", "http://127.0.0.1:1", Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1), {}, "1")

    async def main() -> Guard:
        guard = Guard(machine, "shared", lambda: store, nothing, Place(tmp_path, tmp_path), nothing)
        guard._still = True
        plan = guard._registrar.plan

        async def slow(session: Session) -> Plan:
            planned = await plan(session)
            guard._session = rules.stop(guard._session)
            return planned

        monkeypatch.setattr(guard._registrar, "plan", slow)
        await guard._begin()
        return guard

    guard = asyncio.run(main())
    assert guard._session.state == "gone"
    assert [entry.key for entry in store.list(keys.NODES)] == []
