"""Sidecars that die or hang, a bucket that is gone or silent, volumes that are not what they seem."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from node.agent.custody.context import Bounds
from node.agent.custody.errors import OwnedElsewhere, Unconfirmed
from node.agent.custody.values import CustodyEvent
from node.agent.custody.watchdog import Limits
from node.bucket import cas, keys
from node.bucket.errors import Busy
from node.bucket.records import Lineage, Owner
from tests.integration.custody.conftest import UID, Machine, assignment
from tests.integration.custody.local import FixedSession
from tests.testbed.stores import StoreServer

SIDECAR = "acme-sidecar"
QUICK = Limits(stuck_s=2, silent_s=2, call_s=3, foreign_s=1, first_wait_s=0.1, longest_wait_s=5)
SHORT = Bounds(durable_s=4, confirm_s=4, poll_s=1, settle_s=20)


@pytest.fixture
def alone(own_minio: StoreServer, tmp_path: Path) -> Iterator[Machine]:
    """A node on a MinIO that the test may stop and pause."""
    bucket = own_minio.new_bucket()
    store = own_minio.store(bucket, "fleet/")
    found = Machine(own_minio, bucket, tmp_path / "n1", store, FixedSession(), bounds=SHORT, limits=QUICK)
    yield found
    found.runtime.close()
    store.close()


def record(machine: Machine) -> Owner:
    held = cas.read(machine.store, keys.owner("acme"), Owner)
    assert held
    return held.record


async def event(machine: Machine, kind: str, within_s: float = 90.0) -> CustodyEvent:
    """Supervise until this happens."""
    async with asyncio.timeout(within_s), aclosing(machine.custody.supervise(0.2)) as events:
        async for found in events:
            if found.kind == kind:
                return found
    raise AssertionError(f"no {kind}")


async def confirmed(machine: Machine, within_s: float = 90.0) -> None:
    """Ask until everything is confirmed."""
    until = time.monotonic() + within_s
    while True:
        try:
            return await machine.custody.durable("acme")
        except Unconfirmed:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)


def test_a_sidecar_that_was_killed_is_started_again_and_nothing_is_missing(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        machine.runtime.signal(SIDECAR, signal.SIGKILL)
        machine.write(5)
        with pytest.raises(Unconfirmed):
            await machine.custody.durable("acme")
        (container,) = machine.runtime.containers()
        happened = await machine.custody.sidecar_ended(container)
        assert happened
        assert happened.kind == "sidecar_restarted"
        await confirmed(machine)
        await machine.custody.release("acme")
        await other.up(assignment())
        assert other.count() == 10

    asyncio.run(walk())


def test_a_sidecar_that_hangs_is_restarted_and_says_so(alone: Machine) -> None:
    async def walk() -> None:
        await alone.up(assignment(), lambda: alone.write(5))
        alone.runtime.signal(SIDECAR, signal.SIGSTOP)
        alone.write(5)
        waiting = asyncio.create_task(alone.custody.durable("acme"))
        happened = await event(alone, "sidecar_restarted")
        assert "stuck" in happened.message
        with pytest.raises(Unconfirmed):
            await waiting
        await confirmed(alone)
        assert (await alone.custody.replication("acme")).restarts >= 1
        await alone.custody.release("acme")

    asyncio.run(walk())


def test_a_bucket_that_is_gone_confirms_nothing_and_release_drops_nothing(alone: Machine) -> None:
    async def walk() -> None:
        await alone.up(assignment(), lambda: alone.write(5))
        alone.server.stop()
        alone.write(7)
        with pytest.raises(Unconfirmed):
            await alone.custody.durable("acme")
        with pytest.raises(Unconfirmed) as refused:
            await alone.custody.release("acme")
        assert "Nothing is dropped" in str(refused.value)
        assert alone.runtime.containers()[0].running
        lag = await alone.custody.replication("acme")
        assert lag.lag_s is None or lag.lag_s > 0
        alone.server.start()
        await confirmed(alone, 60)
        await alone.custody.release("acme")
        assert record(alone).state == "released"

    asyncio.run(walk())


def test_a_bucket_that_never_answers_is_waited_for_and_its_sidecar_restarted_when_it_is_back(alone: Machine) -> None:
    async def walk() -> None:
        await alone.up(assignment(), lambda: alone.write(5))
        alone.server.pause()
        alone.write(5)
        began = time.monotonic()
        with pytest.raises(Unconfirmed, match="may or may not"):
            await alone.custody.durable("acme")
        assert time.monotonic() - began < 20
        alone.server.resume()
        await confirmed(alone, 60)
        await alone.custody.release("acme")

    asyncio.run(walk())


def test_an_old_volume_is_set_aside_and_not_wiped(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(rpo=0.0, calls_durable=True), lambda: machine.write(5))
        machine.runtime.signal(SIDECAR, signal.SIGKILL)
        machine.write(3)  # on this disk only, and acknowledged to nobody
        machine.session = FixedSession(session=2, boot_id="boot-after-power-cut")
        machine.restart_agent()
        prepared = await machine.up(assignment(rpo=0.0, calls_durable=True))
        assert prepared.claim.kind == "fresh"
        assert prepared.claim.reason == "unclean"
        assert prepared.set_aside
        assert (prepared.set_aside / "data" / "app.db").exists()
        assert prepared.warnings
        assert machine.count() >= 5

    asyncio.run(walk())


def test_after_a_power_cut_the_last_seconds_go_on_under_a_new_epoch(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(rpo=1.0), lambda: machine.write(5))
        machine.runtime.signal(SIDECAR, signal.SIGKILL)
        machine.write(3)  # on this disk only
        machine.session = FixedSession(session=2, boot_id="boot-after-power-cut")
        machine.restart_agent()
        prepared = await machine.up(assignment(rpo=1.0))
        assert (prepared.claim.kind, prepared.claim.epoch, prepared.set_aside) == ("carried", 2, None)
        assert machine.count() == 8
        found = cas.read(machine.store, keys.lineage("acme", 2), Lineage)
        assert found
        assert (found.record.carried, found.record.parent_epoch, found.record.reason) == (True, 1, "unclean")
        machine.write(1)
        await machine.custody.durable("acme")
        await machine.custody.release("acme")
        await other.up(assignment(rpo=1.0))
        assert other.count() == 9

    asyncio.run(walk())


def test_they_go_on_though_the_first_claim_after_it_failed_half_way(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        await machine.up(assignment(rpo=1.0), lambda: machine.write(5))
        machine.runtime.signal(SIDECAR, signal.SIGKILL)
        machine.write(3)  # on this disk only
        machine.session = FixedSession(session=2, boot_id="boot-after-power-cut")
        machine.restart_agent()
        listing = machine.store.list

        def fails_once_claimed(prefix: str, **how: Any) -> Any:
            if record(machine).state == "claimed":
                raise Busy("not now", key=prefix)
            return listing(prefix, **how)

        with monkeypatch.context() as failing, pytest.raises(Busy):
            failing.setattr(machine.store, "list", fails_once_claimed)
            await machine.up(assignment(rpo=1.0))
        prepared = await machine.up(assignment(rpo=1.0))
        assert (prepared.claim.kind, prepared.claim.epoch, prepared.set_aside) == ("carried", 3, None)
        assert machine.count() == 8

    asyncio.run(walk())


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
def test_a_log_that_a_power_cut_harmed_does_not_go_on(machine: Machine, harm: str) -> None:
    """Litestream had copied and uploaded what the disk never got: going on would take back what is in the bucket."""

    async def walk() -> None:
        await machine.up(assignment(rpo=1.0), lambda: machine.write(5))
        machine.runtime.signal(SIDECAR, signal.SIGKILL)
        log = machine.data / "app.db-wal"
        body = log.read_bytes()
        match harm:
            case "cut":
                log.write_bytes(body[: len(body) // 2])
            case "flipped":
                log.write_bytes(body[:100] + bytes([body[100] ^ 1]) + body[101:])
            case _:
                log.unlink()
        machine.session = FixedSession(session=2, boot_id="boot-after-power-cut")
        machine.restart_agent()
        prepared = await machine.up(assignment(rpo=1.0))
        assert prepared.claim.kind == "fresh"
        assert prepared.set_aside
        assert machine.count() == 5

    asyncio.run(walk())


def test_a_volume_that_cannot_be_mounted_is_set_aside_and_restored_from_the_bucket(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.release("acme")
        machine.volumes.damaged = True
        prepared = await machine.up(assignment())
        assert prepared.claim.epoch == 2
        assert prepared.set_aside
        assert (prepared.set_aside / "data" / "app.db").exists()
        machine.volumes.damaged = False
        assert machine.count() == 5

    asyncio.run(walk())


def test_a_volume_that_diverged_from_the_bucket_is_not_continued(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.release("acme")
        newest = max((machine.data.parent / "meta" / "db" / "app.db" / "ltx" / "0").iterdir())
        content = newest.read_bytes()
        newest.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))  # of a checksum, so it may be any byte
        prepared = await machine.up(assignment())
        assert prepared.claim.kind == "fresh"
        assert machine.count() == 5

    asyncio.run(walk())


def test_a_volume_behind_the_bucket_is_not_continued(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        await machine.custody.release("acme")
        newest = max((machine.data.parent / "meta" / "db" / "app.db" / "ltx" / "0").iterdir())
        newest.unlink()
        prepared = await machine.up(assignment())
        assert prepared.claim.kind == "fresh"
        assert machine.count() == 5

    asyncio.run(walk())


def test_another_node_s_live_tenant_is_not_taken(machine: Machine, other: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        with pytest.raises(OwnedElsewhere) as refused:
            await other.custody.claim(assignment())
        assert refused.value.node == "n1"

    asyncio.run(walk())


def test_whoever_lost_the_tenant_acknowledges_nothing_and_notices(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        held = cas.read(machine.store, keys.owner("acme"), Owner)
        assert held
        theirs = held.record.model_copy(update={"node": "n2", "epoch": 2, "nonce": "theirs", "state": "claimed"})
        machine.store.replace(keys.owner("acme"), theirs.encode(), held.etag)
        machine.write(1)
        with pytest.raises(OwnedElsewhere):
            await machine.custody.durable("acme")
        async with asyncio.timeout(10), aclosing(machine.custody.watch(0.1)) as events:
            async for found in events:
                assert found.kind == "ousted"
                break
        with pytest.raises(OwnedElsewhere):
            await machine.custody.release("acme")
        assert record(machine).node == "n2"
        assert not machine.runtime.containers()

    asyncio.run(walk())


def test_a_session_that_ended_acknowledges_nothing(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        machine.session = FixedSession(alive=False)
        with pytest.raises(Unconfirmed):
            await machine.custody.durable("acme")

    asyncio.run(walk())


def test_a_restarted_agent_adopts_what_runs_and_goes_on_confirming(machine: Machine) -> None:
    async def walk() -> None:
        await machine.up(assignment(), lambda: machine.write(5))
        machine.restart_agent()
        claim = await machine.custody.adopt(assignment(), machine.runtime.containers(), UID)
        assert claim
        assert claim.settled
        machine.write(5)
        await machine.custody.durable("acme")
        machine.session = machine.session.next()
        machine.restart_agent()
        claim = await machine.custody.adopt(assignment(), machine.runtime.containers(), UID)
        assert claim
        assert claim.session == 2
        assert record(machine).session == 2
        assert record(machine).epoch == 1
        await machine.custody.durable("acme")
        await machine.custody.release("acme")
        assert await machine.custody.adopt(assignment(), machine.runtime.containers(), UID) is None

    asyncio.run(walk())


def test_a_file_that_never_appears_is_a_warning_and_does_not_hold_up_a_release(machine: Machine) -> None:
    async def walk() -> None:
        claim = await machine.custody.claim(assignment("app.db", "never.db"))
        await machine.custody.prepare(claim, UID, 1 << 30, lambda phase, fraction: None)
        await machine.custody.stream(claim, UID)
        machine.write(5)
        settling = asyncio.create_task(machine.custody.settle(claim))
        for _ in range(600):  # the other one is settled
            if machine.custody.missing("acme") == ("never.db",):
                break
            await asyncio.sleep(0.1)
        assert machine.custody.missing("acme") == ("never.db",)
        assert not settling.done()
        settling.cancel()
        await machine.custody.release("acme")
        assert set(record(machine).positions) == {"app.db"}
        await machine.up(assignment("app.db", "never.db"))
        assert machine.count() == 5

    asyncio.run(walk())
