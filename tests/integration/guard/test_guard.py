"""The guard as a process: what its machine's tenants see while things die around it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from node.agent.custody import freezer
from node.agent.custody.view import boottime
from node.bucket import cas, keys, liveness
from node.bucket.errors import Conflict
from node.bucket.records import Fleet, Lease
from tests.integration.guard.conftest import MachineUnderTest, Tenant

pytestmark = pytest.mark.store


def test_a_first_start_freezes_writes_a_session_settles_and_thaws(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine = brief_machine
    machine.start()
    machine.until(tenant.counts, "the tenant going on")
    record = machine.lease()
    assert (record.session, record.state, record.mode, record.ttl_s) == (1, "active", "shared", 3.0)
    machine.until(lambda: machine.lease().seq >= 2, "a renewal")
    states = [h["state"] for h in machine.heard() if "state" in h]
    assert states.index("settling") < states.index("active")


def test_until_the_agent_has_settled_everything_nothing_runs(brief_machine: MachineUnderTest, tenant: Tenant) -> None:
    machine = brief_machine
    (machine.agent_dir / "never_settle").touch()
    machine.guard.start(lambda: machine.session().get("state") == "settling")
    machine.until(lambda: machine.lease().seq >= 2, "a renewal")
    assert machine.frozen()
    assert not tenant.counts()


def test_a_killed_guard_is_back_in_the_same_session_without_a_pause(machine: MachineUnderTest, tenant: Tenant) -> None:
    machine.start()
    agent = machine.agent_pid()
    for _ in range(2):
        dead = machine.guard_pid()
        assert dead is not None
        os.kill(dead, signal.SIGKILL)
        machine.until(lambda dead=dead: machine.guard_pid() not in (None, dead), "another guard")
        machine.until(lambda: "session.resumed" in machine.guard.tail(), "its going on")
    seq = machine.lease().seq
    machine.until(lambda: machine.lease().seq > seq, "a renewal by it")
    assert machine.lease().session == 1
    assert machine.agent_pid() == agent
    assert [h["state"] for h in machine.heard() if "state" in h].count("settling") == 1
    assert tenant.counts(within_s=30)


def test_a_killed_agent_is_replaced_in_the_same_session(machine: MachineUnderTest, tenant: Tenant) -> None:
    machine.start()
    dead = machine.agent_pid()
    assert dead is not None
    os.kill(dead, signal.SIGKILL)
    machine.until(lambda: machine.agent_pid() not in (None, dead), "another agent")
    machine.until(lambda: machine.heard()[-1].get("state") == "active", "its hearing of the session")
    assert machine.lease().session == 1
    assert not machine.frozen()
    assert tenant.counts(within_s=30)


def test_guard_and_agent_killed_together_come_back_frozen_in_a_new_session(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine = brief_machine
    machine.start()
    guard, agent = machine.guard_pid(), machine.agent_pid()
    assert guard is not None
    assert agent is not None
    os.kill(agent, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    machine.guard.kill()
    deadline = machine.session()["deadline"]
    machine.until(lambda: boottime() > deadline, "the deadline")
    machine.guard.start(lambda: machine.session().get("session") == 2 and machine.session()["state"] == "active")
    assert machine.lease().session == 2
    machine.until(tenant.counts, "the tenant going on")


def test_an_outage_longer_than_the_lease_freezes_and_a_late_renewal_thaws(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine = brief_machine
    machine.start()
    machine.server.pause()
    machine.until_state("frozen")
    assert machine.session()["reason"] == "store_unreachable"
    assert machine.frozen()
    assert not tenant.counts()
    machine.server.resume()
    machine.until_state("active")
    machine.until(tenant.counts, "the tenant going on")
    assert machine.lease().session == 1
    assert not tenant.dead()


def test_a_refused_connection_freezes_as_well(brief_machine: MachineUnderTest, tenant: Tenant) -> None:
    machine = brief_machine
    machine.start()
    machine.server.stop()
    machine.until_state("frozen")
    assert machine.session()["reason"] == "store_unreachable"
    assert not tenant.counts()
    machine.server.start()
    machine.until_state("active")
    machine.until(tenant.counts, "the tenant going on")


def test_a_revoked_session_is_killed_while_frozen_and_a_new_one_begins(
    machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine.start()
    _revoke(machine)
    machine.until(lambda: machine.session().get("session") == 2, "a new session")
    machine.until_state("active")
    assert tenant.dead()
    assert machine.lease().session == 2
    states = [(h["state"], h["reason"]) for h in machine.heard() if "state" in h]
    assert states[-3:] == [("revoked", "lease_lost"), ("settling", "settling"), ("active", "")]


def test_a_session_revoked_during_an_outage_is_not_thawed(brief_machine: MachineUnderTest, tenant: Tenant) -> None:
    machine = brief_machine
    machine.start()
    guard = machine.guard_pid()
    assert guard is not None
    os.kill(guard, signal.SIGSTOP)
    _revoke(machine)
    machine.server.pause()
    os.kill(guard, signal.SIGCONT)
    machine.until(machine.frozen, "freezing")
    count = tenant.count()
    machine.server.resume()
    machine.until(lambda: machine.session().get("session") == 2, "a new session")
    assert tenant.dead()
    assert tenant.count() == count


def test_a_solo_machine_runs_on_through_an_outage(solo_machine: MachineUnderTest, tenant: Tenant) -> None:
    machine = solo_machine
    machine.start()
    assert machine.lease().mode == "solo"
    started = machine.session()["started"]
    machine.server.pause()
    machine.until(lambda: boottime() > started + 6, "twice the lease's time")
    assert tenant.counts(within_s=30)
    assert machine.session()["state"] == "active"
    machine.server.resume()
    seq = machine.session()["seq"]
    machine.until(lambda: machine.session()["seq"] > seq + 1, "renewals")
    assert machine.lease().session == 1


def test_a_switch_to_shared_is_said_in_the_lease_and_binds(solo_machine: MachineUnderTest, tenant: Tenant) -> None:
    machine = solo_machine
    machine.start()
    held = cas.read(machine.store, keys.FLEET, Fleet)
    assert held is not None
    shared = held.record.model_copy(update={"mode": "shared", "nonce": cas.new_nonce()})
    cas.write(machine.store, keys.FLEET, shared, held.etag, give_up=cas.backoff())
    machine.until(lambda: machine.lease().mode == "shared", "the lease saying so")
    machine.server.pause()
    machine.until_state("frozen")
    assert not tenant.counts()


def test_a_reload_replaces_the_agent_only(machine: MachineUnderTest, tenant: Tenant) -> None:
    machine.start()
    guard, agent = machine.guard_pid(), machine.agent_pid()
    machine.guard.signal(signal.SIGHUP)
    machine.until(lambda: machine.agent_pid() not in (None, agent), "another agent")
    machine.until(lambda: machine.heard()[-1].get("state") == "active", "its hearing of the session")
    assert machine.guard_pid() == guard
    assert machine.lease().session == 1
    assert tenant.counts(within_s=30)


def test_leaving_releases_kills_what_is_left_and_says_gone(machine: MachineUnderTest, tenant: Tenant) -> None:
    machine.start()
    machine.guard.signal(signal.SIGTERM)
    machine.until(lambda: not machine.guard.alive, "the guard's end")
    record = machine.lease()
    assert (record.session, record.state) == (1, "gone")
    assert tenant.dead()
    assert machine.agent_pid() is None
    assert "stopping" in [h.get("state") for h in machine.heard()]


def test_after_leaving_a_start_is_a_new_session(machine: MachineUnderTest) -> None:
    machine.start()
    machine.guard.signal(signal.SIGTERM)
    machine.until(lambda: not machine.guard.alive, "the guard's end")
    machine.guard.start(lambda: machine.session().get("session") == 2 and machine.session()["state"] == "active")
    assert machine.lease().session == 2


def test_an_agent_that_never_releases_is_given_up(machine: MachineUnderTest, tenant: Tenant) -> None:
    (machine.agent_dir / "never_release").touch()
    guard = machine.new_guard(release_s=1.0)
    machine.start(guard)
    guard.signal(signal.SIGTERM)
    machine.until(lambda: not guard.alive, "the guard's end")
    assert machine.lease().state == "gone"
    assert tenant.dead()


def test_leaving_during_an_outage_ends_and_leaves_the_lease_to_run_out(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine = brief_machine
    machine.start()
    machine.server.pause()
    machine.until_state("frozen")
    machine.guard.signal(signal.SIGTERM)
    machine.until(lambda: not machine.guard.alive, "the guard's end")
    assert tenant.dead()
    machine.server.resume()
    assert machine.lease().session == 1


def test_an_agent_that_hangs_is_killed_and_replaced(machine: MachineUnderTest, tenant: Tenant) -> None:
    guard = machine.new_guard(silence_s=2.0)
    machine.start(guard)
    hung = machine.agent_pid()
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    machine.until(lambda: machine.agent_pid() not in (None, hung), "another agent")
    assert machine.lease().session == 1
    assert tenant.counts(within_s=30)


@pytest.mark.long
def test_a_machine_without_any_agent_is_fenced_and_comes_back_with_one(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine = brief_machine
    guard = machine.new_guard(silence_s=2.0, fence_s=4.0)
    machine.start(guard)
    (machine.agent_dir / "never_connect").touch()
    agent = machine.agent_pid()
    assert agent is not None
    os.kill(agent, signal.SIGKILL)
    machine.until_state("hung")
    assert machine.session()["reason"] == "agent_hung"
    assert not tenant.counts()
    seq = machine.lease().seq
    until = boottime() + 4  # ttl + margin: others could take over what runs here
    machine.until(lambda: boottime() > until, "the lease running out")
    assert machine.lease().seq <= seq + 1
    (machine.agent_dir / "never_connect").unlink()
    machine.until_state("active")
    machine.until(tenant.counts, "the tenant going on")
    assert machine.lease().session == 1
    assert ("frozen", "agent_hung") in [(h["state"], h["reason"]) for h in machine.heard() if "state" in h]


def test_a_machine_that_stood_still_past_its_deadline_freezes_before_anything_else(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    """Guard and agent stopped together, as a paused machine's: no tenant runs on when they go on."""
    machine = brief_machine
    machine.start()
    guard, agent = machine.guard_pid(), machine.agent_pid()
    assert guard is not None
    assert agent is not None
    machine.server.pause()  # so that nothing but its own clock tells it
    for pid in (agent, guard):
        os.kill(pid, signal.SIGSTOP)
    deadline = machine.session()["deadline"]
    machine.until(lambda: boottime() > deadline + 1, "the deadline")
    assert tenant.counts(
        within_s=30
    )  # nobody is there to freeze it: it acknowledges nothing, as its agent stands still too
    os.kill(guard, signal.SIGCONT)
    machine.until_state("frozen")
    assert machine.session()["reason"] in ("guard_paused", "store_unreachable")
    assert not tenant.counts()
    os.kill(agent, signal.SIGCONT)
    machine.server.resume()
    machine.until_state("active")
    machine.until(tenant.counts, "the tenant going on")
    assert machine.lease().session == 1


def test_a_guard_that_is_back_after_its_deadline_freezes_though_no_bucket_answers(
    brief_machine: MachineUnderTest, tenant: Tenant
) -> None:
    machine = brief_machine
    machine.start()
    machine.server.pause()
    machine.kill_everything()
    deadline = machine.session()["deadline"]
    machine.until(lambda: boottime() > deadline, "the deadline")
    freezer.thaw(machine.cage)  # whatever its last guard still did: nobody holds them now
    assert tenant.counts(within_s=30)
    machine.guard.start(machine.frozen)
    assert not tenant.counts()
    machine.server.resume()
    machine.until(lambda: machine.session().get("session") == 2, "a new session")


def test_a_guard_that_hangs_is_replaced_by_its_agent(machine: MachineUnderTest) -> None:
    machine.start()
    hung = machine.guard_pid()
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    machine.until(lambda: machine.guard_pid() not in (None, hung), "another guard")
    machine.until_state("active")


def test_a_second_guard_stands_in_and_takes_over(machine: MachineUnderTest) -> None:
    machine.start()
    first = machine.guard_pid()
    second = machine.new_guard()
    second.start(lambda: "guard.stands_in" in second.tail())
    assert machine.guard_pid() == first
    second.signal(signal.SIGTERM)
    machine.until(lambda: not second.alive and not machine.guard.alive, "both leaving")
    assert machine.lease().state == "gone"


def test_the_bucket_of_another_fleet_is_refused(machine: MachineUnderTest) -> None:
    machine.state.mkdir()
    (machine.state / "fleet.json").write_text('{"id": "another", "node": "n1", "machine": "m"}')
    with pytest.raises(AssertionError, match="FLEET_BUCKET"):
        machine.guard.start(lambda: False)
    assert cas.read(machine.store, keys.node("n1"), Lease) is None
    assert machine.agent_pid() is None
    assert machine.guard_pid() is None


def test_a_state_folder_stays_with_its_nodes_name(machine: MachineUnderTest) -> None:
    machine.start()
    machine.guard.signal(signal.SIGTERM)
    machine.until(lambda: not machine.guard.alive, "the guard's end")
    renamed = machine.new_guard(node="n2")
    with pytest.raises(AssertionError, match="FLEET_NODE=n1"):
        renamed.start(lambda: False)
    assert cas.read(machine.store, keys.node("n2"), Lease) is None


def test_a_machine_with_a_living_ones_name_is_refused(brief_machine: MachineUnderTest, tmp_path: Path) -> None:
    machine = brief_machine
    machine.start()
    twin = machine.new_guard(run=str(tmp_path / "run2"), state=str(tmp_path / "state2"))
    with pytest.raises(AssertionError, match="set another FLEET_NODE"):
        twin.start(lambda: False)
    assert machine.lease().session == 1


def test_a_machine_with_a_dead_ones_name_takes_its_place_after_its_time(
    brief_machine: MachineUnderTest, tmp_path: Path
) -> None:
    machine = brief_machine
    machine.start()
    machine.kill_everything()
    began = boottime()
    heir = machine.new_guard(run=str(tmp_path / "run2"), state=str(tmp_path / "state2"))
    heir.start(lambda: machine.lease().session == 2)
    assert boottime() - began >= 4.0  # ttl + margin of the dead one's lease
    machine.run = tmp_path / "run2"
    machine.kill_everything()


def test_a_second_machine_ends_the_solo_fleet(solo_machine: MachineUnderTest, tmp_path: Path) -> None:
    machine = solo_machine
    machine.start()
    second = machine.new_guard(node="n2", run=str(tmp_path / "run2"), state=str(tmp_path / "state2"))
    second.start(lambda: cas.read(machine.store, keys.node("n2"), Lease) is not None)
    machine.until(lambda: machine.lease().mode == "shared", "the first machine's lease saying so")
    machine.kill_everything()
    machine.run = tmp_path / "run2"
    machine.kill_everything()


def test_a_container_born_late_is_born_frozen(brief_machine: MachineUnderTest, tenant: Tenant, tmp_path: Path) -> None:
    machine = brief_machine
    machine.start()
    machine.server.pause()
    machine.until_state("frozen")
    folder = tmp_path / "late"
    folder.mkdir()
    late = Tenant(machine.cage, folder)
    try:
        machine.until(lambda: bool(set(freezer.processes(machine.cage)) & {late.process.pid}), "its birth")
        assert not late.counts()
    finally:
        late.end()


def _revoke(machine: MachineUnderTest) -> None:
    """What an observer does, without waiting: the test knows that nothing of it is running meanwhile."""
    while True:
        held = cas.read(machine.store, keys.node("n1"), Lease)
        assert held is not None
        try:
            gone = liveness.gone(held.record, nonce=cas.new_nonce())
            cas.write(machine.store, keys.node("n1"), gone, held.etag, give_up=cas.backoff())
        except Conflict:  # a renewal came first
            continue
        return
