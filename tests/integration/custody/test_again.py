"""A step that failed half-way is begun again, and a release that did not come to its end is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from node.agent.custody import marker
from node.agent.custody.errors import Refused, Unconfirmed
from node.agent.ports import RuntimeFailed
from node.bucket import cas, keys
from node.bucket.errors import Ambiguous
from node.bucket.records import Owner
from node.bucket.store import Store
from tests.integration.custody.conftest import DISK, UID, Machine, assignment
from tests.integration.custody.test_faults import confirmed, record


class Doubtful:
    """A store that does the calls named in `late` and then gives no answer, each once."""

    def __init__(self, inner: Store, *late: str) -> None:
        self._inner, self.late = inner, list(late)
        self.then: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in self.late:
            return method

        def unanswered(*args: Any, **kwargs: Any) -> Any:
            self.late.remove(name)
            if name != "list":
                method(*args, **kwargs)
            self.then()
            raise Ambiguous("no answer")

        return unanswered


def test_a_birth_that_is_begun_again_keeps_what_its_worker_wrote_meanwhile(machine: Machine) -> None:
    def no_sidecar(call: str) -> None:
        if call == "create":
            machine.runtime.before = lambda _: None
            raise RuntimeFailed("the engine is away", reason="no_engine", retryable=True)

    async def walk() -> None:
        claim = await machine.custody.claim(assignment())
        first = await machine.custody.prepare(claim, UID, DISK, lambda phase, fraction: None)
        machine.write(3)  # its worker runs already
        machine.runtime.before = no_sidecar
        with pytest.raises(Refused):
            await machine.custody.stream(claim, UID)
        again = await machine.up(assignment())
        assert again.volume == first.volume
        assert machine.count() == 3
        assert not (machine.folder / "aside").exists()
        await confirmed(machine)

    asyncio.run(walk())


def test_a_release_that_could_not_be_confirmed_is_taken_back_with_its_sidecar(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(3))
        store = Doubtful(machine.store, "list")
        object.__setattr__(machine.custody._ctx, "store", store)  # only from here on
        with pytest.raises(Unconfirmed):
            await machine.custody.release("acme")
        assert not any(c.running for c in machine.runtime.containers())
        await machine.custody.resume("acme")
        assert [c.running for c in machine.runtime.containers()] == [True]
        machine.write(2)
        await confirmed(machine)

    asyncio.run(walk())


def test_a_release_whose_record_is_in_doubt_is_taken_back_before_anything_runs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cas, "backoff", lambda: lambda _: None)

    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(3))
        store = Doubtful(machine.store, "replace")
        object.__setattr__(machine.custody._ctx, "store", store)
        with pytest.raises(Unconfirmed):
            await machine.custody.release("acme")
        assert record(machine).state == "released"  # it landed, and nobody here knows
        found = marker.read(machine.folder / "t" / "acme" / "marker")
        assert found
        assert found.disposable
        await machine.custody.resume("acme")
        assert record(machine).state == "running"
        found = marker.read(machine.folder / "t" / "acme" / "marker")
        assert found
        assert not found.disposable  # its worker may write now what is nowhere else
        machine.write(2)
        await confirmed(machine)

    asyncio.run(walk())


def test_what_was_claimed_by_a_session_that_ended_meanwhile_is_claimed_anew(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(3))
        await machine.custody.release("acme")
        store = Doubtful(machine.store, "replace")

        def revoked() -> None:
            machine.session = machine.session.next()

        store.then = revoked
        machine.restart_agent(store=store)
        with pytest.raises(Refused) as refused:
            await machine.custody.claim(assignment())
        assert refused.value.reason == "no_session"
        assert machine.custody.held() == ()
        claim = await machine.custody.claim(assignment())
        held = cas.read(machine.store, keys.owner("acme"), Owner)
        assert held
        assert claim.session == held.record.session == machine.session.session == 2

    asyncio.run(walk())
