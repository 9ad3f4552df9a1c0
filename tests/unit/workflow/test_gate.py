"""What waits until a commit is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from node.workflow.errors import NotOpen
from node.workflow.serve import gate as gate_module
from node.workflow.serve.gate import Gate
from node.workflow.values.run import Stats


class Log:
    """A counter of commits and a `durable` that the test answers by hand."""

    def __init__(self) -> None:
        self.commits = 0
        self.calls: list[asyncio.Future[None]] = []
        self.stats = Stats()
        self.gate = Gate(self.durable, lambda: self.commits, self.stats)

    async def durable(self) -> None:
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        await call

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def run(test: Callable[[Log], Awaitable[None]]) -> None:
    async def main() -> None:
        log = Log()
        await test(log)
        await log.gate.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "FIRST_WAIT_S", 0)


def test_without_durable_every_commit_is_confirmed() -> None:
    async def main() -> None:
        gate = Gate(None, lambda: 0, Stats())
        assert gate.is_confirmed(10**9)
        await gate.wait(10**9)

    asyncio.run(main())


def test_what_the_file_had_before_is_not_confirmed_either() -> None:
    async def test(log: Log) -> None:
        assert not log.gate.is_confirmed(0)
        let_through: list[int] = []
        log.gate.when(0, lambda: let_through.append(0))
        await log.settle()
        assert not let_through
        log.calls[0].set_result(None)
        await log.settle()
        assert let_through == [0]

    run(test)


def test_one_confirmation_serves_all_who_wait() -> None:
    async def test(log: Log) -> None:
        log.commits = 3
        let_through: list[int] = []
        for mark in (3, 1, 2):
            log.gate.when(mark, lambda mark=mark: let_through.append(mark))  # type: ignore[misc] # mypy can't type a default of a lambda
        await log.settle()
        assert len(log.calls) == 1
        log.calls[0].set_result(None)
        await log.settle()
        assert let_through == [1, 2, 3]
        assert len(log.calls) == 1
        assert log.stats.confirmations == 1

    run(test)


def test_a_commit_made_while_a_confirmation_is_under_way_waits_for_the_next() -> None:
    async def test(log: Log) -> None:
        log.commits = 1
        first, second = asyncio.ensure_future(log.gate.wait(1)), None
        await log.settle()
        log.commits = 2
        second = asyncio.ensure_future(log.gate.wait(2))
        await log.settle()
        log.calls[0].set_result(None)
        await log.settle()
        assert first.done()
        assert not second.done()
        log.calls[1].set_result(None)
        await log.settle()
        assert second.done()

    run(test)


def test_an_error_is_unknown_and_asked_again() -> None:
    async def test(log: Log) -> None:
        waiting = asyncio.ensure_future(log.gate.wait(0))
        await log.settle()
        for n in range(5):
            log.calls[n].set_exception(OSError("no answer"))
            await log.settle()
            assert not waiting.done()
        log.calls[5].set_result(None)
        await log.settle()
        assert waiting.done()
        assert (log.stats.failed_confirmations, log.stats.confirmations) == (5, 1)

    run(test)


def test_closing_lets_nothing_through() -> None:
    async def test(log: Log) -> None:
        let_through: list[int] = []
        log.gate.when(0, lambda: let_through.append(0))
        waiting = asyncio.ensure_future(log.gate.wait(0))
        await log.settle()
        await log.gate.close()
        assert not let_through
        with pytest.raises(NotOpen):
            await waiting

    run(test)


def test_nothing_is_asked_while_nobody_waits() -> None:
    async def test(log: Log) -> None:
        await log.settle()
        assert not log.calls
        waiting = asyncio.ensure_future(log.gate.wait(0))
        await log.settle()
        log.calls[0].set_result(None)
        await waiting
        await log.settle()
        assert len(log.calls) == 1

    run(test)
