"""No row may be missing after a restore, however its writer checkpoints and however often it asks for confirmation.

This also tells whether another release of Litestream is safe: `integrity_check` does not notice missing rows.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from node.agent.custody.errors import Unconfirmed
from tests.integration.custody.conftest import DISK, UID, Machine, assignment

ROWS = 3000
RATE = 400.0
PACE = random.Random(7)


@pytest.mark.parametrize("autocheckpoint", [0, 1000], ids=["our worker", "a foreign image with default autocheckpoint"])
def test_every_row_is_there_after_a_restore_under_load(machine: Machine, other: Machine, autocheckpoint: int) -> None:
    assert asyncio.run(_load(machine, other, autocheckpoint, _ask)) > 20
    assert other.count() == ROWS


def test_every_row_is_there_though_agents_die_in_the_middle_of_their_calls(machine: Machine, other: Machine) -> None:
    asyncio.run(_load(machine, other, 1000, _break_off))
    assert other.count() == ROWS


async def _load(machine: Machine, other: Machine, autocheckpoint: int, ask: Callable[[Machine], Awaitable[int]]) -> int:
    claim = await machine.custody.claim(assignment())
    await machine.custody.prepare(claim, UID, DISK, lambda phase, fraction: None)
    await machine.custody.stream(claim, UID)
    writer = start_writer(machine, autocheckpoint)
    assert writer.stdout
    assert writer.stdin
    await asyncio.to_thread(writer.stdout.readline)
    await machine.custody.settle(claim)
    done, confirmed = asyncio.create_task(asyncio.to_thread(writer.stdout.readline)), 0
    while not done.done():
        confirmed += await ask(machine)
        await asyncio.sleep(PACE.choice((0.005, 0.4)))  # seldom enough that the WAL turns between two calls
    await machine.custody.durable("acme")
    writer.stdin.close()
    await asyncio.to_thread(writer.wait)
    await machine.custody.release("acme")
    assert machine.count() == ROWS
    await other.up(assignment())
    return confirmed


def start_writer(machine: Machine, autocheckpoint: int) -> subprocess.Popen[str]:
    command = [sys.executable, Path(__file__).with_name("writer.py"), machine.data / "app.db"]
    return subprocess.Popen(
        [*map(str, command), str(ROWS), str(RATE), str(autocheckpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def _ask(machine: Machine) -> int:
    """Confirmations, one of them for a caller who does not wait for it."""
    asked = [asyncio.create_task(machine.custody.durable("acme")) for _ in range(4)]
    await asyncio.sleep(0.002)
    asked[0].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert not [a for a in answers if isinstance(a, Exception) and not isinstance(a, Unconfirmed)]
    return sum(a is None for a in answers)


async def _break_off(machine: Machine) -> int:
    """A call whose connection ends before its answer, as when its agent is killed."""
    _, writer = await asyncio.open_unix_connection(machine.data.parent / "meta" / "ls.sock")
    body = b'{"path": "/data/app.db", "wait": true, "timeout": -1}'
    writer.write(b"POST /sync HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    await asyncio.sleep(PACE.choice((0.0, 0.001, 0.003)))
    writer.close()
    return 0
