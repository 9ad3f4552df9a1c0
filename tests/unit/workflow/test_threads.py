"""Threads of sync activities."""

from __future__ import annotations

import asyncio
import threading

import pytest

from node.workflow.activities.threads import Threads


def test_a_thread_that_cannot_be_started_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, list[str]()

    def scarce(thread: threading.Thread) -> None:
        if len(refused) < 4:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")  # what the machine says at its limit of processes
        start(thread)

    async def main() -> None:
        threads = Threads(2)
        monkeypatch.setattr(threading.Thread, "start", scarce)
        for _ in range(4):
            await asyncio.wait_for(threads.place(), 10)
            with pytest.raises(RuntimeError, match="new thread"):
                await threads.call(len, ["abc"])
        for _ in range(3):
            await asyncio.wait_for(threads.place(), 10)
            assert await threads.call(len, ["abc"]) == (3, None)
        threads.close()

    asyncio.run(main())
    assert len(refused) == 4
