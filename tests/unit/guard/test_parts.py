"""The guard's small parts: its memory, its link's lines, the locks, the keeper's patience, the engine's answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from node import lock
from node.agent import engine
from node.agent.custody import lease, sessionfile, view
from node.agent.custody import session as rules
from node.agent.custody.keeper import wait_before
from node.agent.custody.lease import Machine
from node.agent.custody.session import Session
from node.agent.custody.sessionfile import Pending, Saved
from node.agent.custody.threads import in_thread
from node.agent.runtime.cgroup import Cgroups
from node.bucket.records import Capacity

SESSION = rules.settled(
    rules.begun(
        Session(node="n1", ttl_s=15.0, margin_s=3.0, mode="shared"), number=7, etag="e", started=100.0, now=100.1
    ),
    number=7,
    now=100.2,
)
MACHINE = Machine("n1", "http://n1", Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1), {}, "1")


def test_what_is_saved_comes_back_whole(tmp_path: Path) -> None:
    ours = lease.first(MACHINE, None, session=SESSION, nonce="a")
    pending = Pending(lease.next_lease(MACHINE, ours, session=SESSION, mode="shared", nonce="b"), "e", 105.0)
    saved = Saved("boot", "fleet", SESSION, ours, pending)
    sessionfile.save(tmp_path, saved)
    assert sessionfile.load(tmp_path) == saved


def test_a_pending_write_comes_back_byte_for_byte(tmp_path: Path) -> None:
    ours = lease.first(MACHINE, None, session=SESSION, nonce="a")
    sessionfile.save(tmp_path, Saved("boot", "fleet", SESSION, ours, Pending(ours, "e", 105.0)))
    found = sessionfile.load(tmp_path)
    assert found is not None
    assert found.pending is not None
    assert found.pending.lease.encode() == ours.encode()


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"boot_id": "b"}', "[]"])
def test_a_file_that_cannot_be_gone_on_with_is_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / sessionfile.NAME).write_text(content)
    assert sessionfile.load(tmp_path) is None


def test_the_session_file_is_roots_alone(tmp_path: Path) -> None:
    sessionfile.save(tmp_path, Saved("boot", "fleet", SESSION, None, None))
    assert (tmp_path / sessionfile.NAME).stat().st_mode & 0o777 == 0o600


def test_a_view_survives_the_link() -> None:
    seen = view.view_of(SESSION, "boot")
    assert view.decode(view.encode(seen)) == seen


def test_a_newer_guards_fields_are_ignored() -> None:
    line = view.encode(view.view_of(SESSION, "boot")).replace(b"{", b'{"added":1,', 1)
    assert view.decode(line).session == 7


def test_an_unbound_session_is_live_without_a_deadline() -> None:
    solo = view.view_of(replace(SESSION, mode="solo"), "boot")
    assert solo.deadline_boottime_s is None
    assert solo.live()


def test_a_view_past_its_deadline_is_not_live_whoever_sent_it() -> None:
    assert not replace(view.view_of(SESSION, "boot"), deadline_boottime_s=0.0).live()
    assert replace(view.view_of(SESSION, "boot"), deadline_boottime_s=1e12).live()


@pytest.mark.parametrize("state", ["starting", "settling", "frozen", "revoked", "gone"])
def test_only_a_running_state_is_live(state: rules.State) -> None:
    assert not replace(view.view_of(SESSION, "boot"), deadline_boottime_s=None, state=state).live()


def test_a_renewal_is_no_change_to_tell() -> None:
    before = view.view_of(SESSION, "boot")
    assert before.same_as(replace(before, seq=9, deadline_boottime_s=1.0))
    assert not before.same_as(replace(before, state="frozen"))


def test_one_of_many_gets_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not lock.is_held(path)
    lock.take(path)
    assert lock.is_held(path)
    with pytest.raises(lock.Held):
        lock.take(path)
    assert lock.holder(path) is None  # it is this very process


def test_an_agent_that_falls_again_and_again_waits_longer() -> None:
    waits = [wait_before(n) for n in range(12)]
    assert waits[0] == 0.0
    assert waits == sorted(waits)
    assert waits[-1] == 10.0


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"CgroupDriver": "cgroupfs", "CgroupVersion": "1"}, Cgroups("cgroupfs", 1)),
        ({"CgroupDriver": "systemd", "CgroupVersion": "2"}, Cgroups("systemd", 2)),
        ({"CgroupDriver": "cgroupfs"}, Cgroups("cgroupfs", 1)),
    ],
)
def test_the_engine_says_how_it_makes_cgroups(info: dict[str, str], expected: Cgroups, tmp_path: Path) -> None:
    assert engine.cgroups_of(info) == expected
    engine.remember(tmp_path, expected)
    assert engine.recall(tmp_path) == expected


def test_a_silent_engine_is_none(tmp_path: Path) -> None:
    assert engine.ask(f"unix://{tmp_path}/nobody.sock") is None
    assert engine.recall(tmp_path) is None


def test_what_a_thread_raises_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(in_thread(fail))
    assert asyncio.run(in_thread(lambda: 7)) == 7
