"""The agent dies at each of its steps, before or after the step took effect; a new one ends up with the same rows."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from node.agent.custody.errors import CustodyError, Unconfirmed
from node.bucket import cas, keys
from node.bucket.records import Owner
from tests.integration.custody.conftest import UID, Machine, assignment

MOST_STEPS = 60


class Died(Exception):
    """The agent is gone."""


class Fate:
    """Dies at step `at`, `after` its effect or before it; whatever it tries later fails too."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.steps, self.dead = at, after, 0, False

    def live(self, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise Died
        self.steps += 1
        if self.steps != self.at:
            return call()
        self.dead = True
        if self.after:
            call()
        raise Died


class Mortal:
    """A port whose every call is a step of a fate."""

    def __init__(self, inner: object, fate: Fate) -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            result = self._fate.live(lambda: method(*args, **kwargs))
            return list(result) if name == "list" else result

        return step


def mortal(machine: Machine, fate: Fate) -> None:
    """A new agent with this fate."""
    machine.restart_agent(
        store=Mortal(machine.store, fate), runtime=Mortal(machine.runtime, fate), volumes=Mortal(machine.volumes, fate)
    )


async def come_back(machine: Machine) -> None:
    """What the next agent does: take over what runs and is ours, kill the rest, walk."""
    machine.restart_agent()
    containers = machine.runtime.containers()
    claim = await machine.custody.adopt(assignment(), containers, UID) if containers else None
    if claim is not None:
        if claim.born and not (machine.data / "app.db").exists():
            machine.write(6)  # its worker had not begun
        await asyncio.wait_for(machine.custody.settle(claim), 90)
        return
    for container in containers:
        machine.runtime.remove(container.name)
    await machine.up(assignment(), lambda: machine.write(6))


async def check(machine: Machine) -> None:
    """Held, confirmed, and every row is there."""
    held = cas.read(machine.store, keys.owner("acme"), Owner)
    assert held
    assert (held.record.state, held.record.node) == ("running", machine.session.node)
    assert held.record.epoch == held.record.data_epoch
    await confirmed(machine)
    assert machine.count() == 6


async def confirmed(machine: Machine) -> None:
    """Ask until it is: a sidecar that was adopted in its first moment may not answer yet."""
    for _ in range(1200):
        try:
            return await machine.custody.durable("acme")
        except Unconfirmed:
            await asyncio.sleep(0.05)
    raise AssertionError("never confirmed")


async def each_step(
    machine: Machine, after: bool, prepare: Callable[[], Awaitable[None]], walk: Callable[[], Awaitable[object]]
) -> int:
    """Run a walk once per step with death at that step, then let the next agent come back; how many steps there are."""
    for at in range(1, MOST_STEPS):
        await prepare()
        fate = Fate(at, after=after)
        mortal(machine, fate)
        try:
            await walk()
        except (Died, CustodyError):
            assert fate.dead
        await come_back(machine)
        await check(machine)
        if not fate.dead:
            return at - 1
        await machine.custody.release("acme")
    raise AssertionError("it never gets through")


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_a_restore_survives_death_at_every_step(machine: Machine, after: bool) -> None:
    async def lose() -> None:
        if machine.data.exists():
            shutil.rmtree(machine.data.parent)

    async def main() -> int:
        await machine.up(assignment(), lambda: machine.write(6))
        await machine.custody.release("acme")
        return await each_step(machine, after, lose, lambda: machine.up(assignment()))

    assert asyncio.run(main()) > 10


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_a_stop_and_start_survives_death_at_every_step(machine: Machine, after: bool) -> None:
    async def nothing() -> None:
        return

    async def stop_and_start() -> None:
        await machine.up(assignment())
        await machine.custody.release("acme")
        await machine.up(assignment())

    async def main() -> int:
        await machine.up(assignment(), lambda: machine.write(6))
        await machine.custody.release("acme")
        return await each_step(machine, after, nothing, stop_and_start)

    assert asyncio.run(main()) > 10


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
def test_a_birth_survives_death_at_every_step(machine: Machine, after: bool) -> None:
    """Rows that a worker wrote before its first snapshot are confirmed or set aside: never started empty over."""

    async def main() -> None:
        for at in range(1, MOST_STEPS):
            fate = Fate(at, after=after)
            mortal(machine, fate)
            try:
                await machine.up(assignment(), lambda: machine.write(6))
            except (Died, CustodyError):
                assert fate.dead
            await come_back(machine)
            await check(machine)
            await machine.custody.release("acme")
            for entry in list(machine.store.list("")):
                machine.store.delete([entry.key])
            shutil.rmtree(machine.data.parent)
            if not fate.dead:
                return
        raise AssertionError("it never gets through")

    asyncio.run(main())
