"""A chain with a corrupt, cut, empty or missing object: never restored silently, never started empty."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from node.agent.custody.errors import CustodyError, Damaged, Lost, Refused
from node.bucket import cas, keys
from node.bucket.records import Lineage, Owner, Restore
from tests.integration.custody.conftest import DISK, UID, Machine, assignment
from tests.integration.custody.local import FixedSession

ACCEPTED = assignment(restore=Restore(id="r1", accept_data_loss=True))


async def lived(machine: Machine) -> list[int]:
    """A tenant that wrote in three confirmed batches, released: how many rows there were at each raw transaction."""
    await machine.up(assignment(), lambda: machine.write(1))
    for _ in range(3):
        machine.write(1)
        await machine.custody.durable("acme")
    await machine.custody.release("acme")
    return [1, 2, 3, 4]


def raw(machine: Machine) -> list[str]:
    return [e.key for e in machine.store.list("data/acme/") if "/0000/" in e.key]


def every(machine: Machine) -> list[str]:
    return [e.key for e in machine.store.list("data/acme/")]


def body(machine: Machine, key: str) -> bytes:
    return machine.store.get(key).body


def put(machine: Machine, key: str, content: bytes) -> None:
    machine.server.client.put_object(Bucket=machine.bucket, Key=f"fleet/{key}", Body=content)


def flip(machine: Machine, key: str) -> None:
    content = bytearray(body(machine, key))
    content[len(content) // 2] ^= 0xFF
    put(machine, key, bytes(content))


def cut_short(machine: Machine, key: str) -> None:
    put(machine, key, body(machine, key)[:-20])


def empty(machine: Machine, key: str) -> None:
    put(machine, key, b"")


def missing(machine: Machine, key: str) -> None:
    machine.store.delete([key])


def record(machine: Machine) -> Owner:
    held = cas.read(machine.store, keys.owner("acme"), Owner)
    assert held
    return held.record


async def fails(machine: Machine) -> CustodyError:
    with pytest.raises((Damaged, Lost)) as failed:
        await machine.up(assignment())
    return failed.value


@pytest.mark.parametrize("harm", [flip, cut_short, empty, missing])
def test_a_bad_last_object_leaves_the_state_before_it_to_be_accepted(
    machine: Machine, other: Machine, harm: Callable[[Machine, str], None]
) -> None:
    async def walk() -> None:
        await lived(machine)
        before, last = raw(machine)[-2:]
        harm(machine, last)
        error = await fails(other)
        assert isinstance(error, Damaged)
        assert error.instead.files["app.db"] == before[-20:-4]
        assert before[-20:-4].lstrip("0") in str(error) or "transaction" in str(error)
        assert record(other).state == "damaged"
        with pytest.raises(Refused) as refused:
            await machine.up(assignment())
        assert refused.value.reason == "damaged"
        prepared = await other.up(ACCEPTED)
        assert prepared.claim.kind == "fresh"
        assert other.count() == 3
        assert record(other).state == "running"
        assert record(other).restore_id == "r1"
        lineage = cas.read(other.store, keys.lineage("acme", prepared.claim.epoch), Lineage)
        assert lineage
        assert lineage.record.cut["app.db"] == before[-20:-4]

    asyncio.run(walk())


def test_a_gap_in_the_middle_is_seen_in_the_listing(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await lived(machine)
        second = raw(machine)[1]
        for key in every(machine):
            if key == second or ("/0001/" in key and second[-20:-4] in key):
                missing(machine, key)
        error = await fails(other)
        assert isinstance(error, Damaged)
        assert error.instead.files["app.db"] == raw(machine)[0][-20:-4]

    asyncio.run(walk())


def test_nothing_restorable_is_lost_and_starts_empty_only_when_that_is_accepted(
    machine: Machine, other: Machine
) -> None:
    async def walk() -> None:
        await lived(machine)
        for key in every(machine):
            missing(machine, key)
        assert isinstance(await fails(other), Lost)
        assert record(other).state == "lost"
        with pytest.raises(Refused):
            await other.up(assignment())
        prepared = await other.up(ACCEPTED, lambda: other.write(2))
        assert prepared.claim.born
        assert other.count() == 2

    asyncio.run(walk())


def test_every_object_unreadable_is_lost(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await lived(machine)
        for key in every(machine):
            flip(machine, key)
        assert isinstance(await fails(other), Lost)
        prepared = await other.up(ACCEPTED, lambda: other.write(2))
        assert prepared.claim.born

    asyncio.run(walk())


@pytest.mark.parametrize("harm", [missing, flip])
def test_what_it_wrote_after_its_loss_was_accepted_outlives_a_crash_before_it_settled(
    machine: Machine, other: Machine, harm: Callable[[Machine, str], None]
) -> None:
    async def walk() -> None:
        await lived(machine)
        for key in every(machine):
            harm(machine, key)
        assert isinstance(await fails(other), Lost)
        two = assignment("app.db", "later.db", rpo=1.0, restore=ACCEPTED.restore)
        prepared = await other.custody.prepare(await other.custody.claim(two), UID, DISK, lambda *_: None)
        await other.custody.stream(prepared.claim, UID)
        assert prepared.claim.born
        other.write(3)
        await uploaded(other, "app.db")
        other.runtime.signal("acme-sidecar", signal.SIGKILL)
        other.session = FixedSession(node="n2", session=2, boot_id="boot-after-power-cut")
        other.restart_agent()
        again = await other.custody.prepare(await other.custody.claim(two), UID, DISK, lambda *_: None)
        assert again.claim.kind == "fresh"
        await other.up(two)
        assert other.count() == 3
        assert record(other).restore_id == "r1"

    asyncio.run(walk())


async def uploaded(machine: Machine, db: str) -> None:
    """Wait until all that a file holds is in the bucket."""
    for _ in range(300):
        lag = (await machine.custody.replication("acme")).files.get(db)
        if lag is not None and lag.txid is not None and lag.txid == lag.replicated_txid:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{db} is not in the bucket")


def test_a_list_that_fails_is_unknown_and_not_empty(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await lived(machine)

        class Blind:
            def __getattr__(self, name: str) -> object:
                return getattr(machine.store, name)

            def list(self, prefix: str, **options: object) -> object:
                from node.bucket.errors import Ambiguous

                raise Ambiguous("no answer", key=prefix)

        other.restart_agent(store=Blind())
        with pytest.raises(Exception, match="no answer"):
            await other.up(assignment())
        assert not other.data.exists()
        other.restart_agent()
        await other.up(assignment())
        assert other.count() == 4

    asyncio.run(walk())
