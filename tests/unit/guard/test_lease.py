"""What is written into a lease, when, and when another machine's session is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.agent.custody import lease as leases
from node.agent.custody import session as rules
from node.agent.custody.lease import Machine
from node.agent.custody.session import Session
from node.bucket import liveness
from node.bucket.liveness import Sighting, look
from node.bucket.records import Capacity, Lease

ME = Machine("n1", "http://n1:7081", Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1), {"zone": "a"}, "0.1.0")
SESSION = rules.settled(
    rules.begun(
        Session(node="n1", ttl_s=15.0, margin_s=3.0, mode="shared"), number=7, etag="e", started=100.0, now=100.1
    ),
    number=7,
    now=100.2,
)


def lease(session: int = 7, seq: int = 4, **changes: object) -> Lease:
    base = leases.first(ME, None, session=SESSION, nonce="n")
    return base.model_copy(update={"session": session, "seq": seq, **changes})


def test_the_first_lease_of_a_machine_is_session_one() -> None:
    first = leases.first(ME, None, session=SESSION, nonce="n")
    assert (first.session, first.seq, first.state, first.ttl_s, first.margin_s) == (1, 1, "active", 15.0, 3.0)
    assert (first.url, first.labels) == ("http://n1:7081", {"zone": "a"})


@pytest.mark.parametrize("state", ["active", "draining", "gone"])
def test_a_new_session_is_one_past_the_last_whatever_became_of_it(state: str) -> None:
    after = leases.first(ME, lease(session=9, seq=100, state=state), session=SESSION, nonce="m")
    assert (after.session, after.seq, after.state) == (10, 1, "active")


def test_a_renewal_counts_on_and_keeps_what_a_newer_version_added() -> None:
    before = Lease.model_validate({**lease().model_dump(), "added_later": {"a": 1}})
    after = leases.next_lease(ME, before, session=SESSION, mode="shared", nonce="m")
    assert (after.session, after.seq, after.nonce) == (7, 5, "m")
    assert after.model_extra == {"added_later": {"a": 1}}


def test_a_draining_machine_stays_draining_in_its_session() -> None:
    draining = lease(state="draining")
    assert leases.next_lease(ME, draining, session=SESSION, mode="shared", nonce="m").state == "draining"


def test_a_renewal_says_the_mode_that_the_fleet_wants() -> None:
    assert leases.next_lease(ME, lease(), session=SESSION, mode="solo", nonce="m").mode == "solo"


def test_gone_changes_nothing_but_the_state() -> None:
    after = liveness.gone(lease(), nonce="m")
    assert after == lease().model_copy(update={"state": "gone", "nonce": "m"})


def test_it_is_renewed_every_third_of_the_ttl() -> None:
    assert leases.renew_at(SESSION, attempted=100.0) == 105.0


def test_a_frozen_machine_tries_every_second() -> None:
    assert leases.renew_at(rules.tick(SESSION, now=112.0), attempted=120.0) == 121.0


def test_attempts_come_faster_than_the_deadline() -> None:
    waits = [leases.retry_after(n, ttl_s=15.0) for n in range(1, 40)]
    assert waits[0] == 0.1
    assert max(waits) == 2.5
    assert waits == sorted(waits)


@pytest.mark.parametrize(
    ("record", "over"),
    [
        (lease(session=7), False),
        (lease(session=7, state="draining"), False),
        (lease(session=7, state="gone"), True),
        (lease(session=8), True),
        (lease(session=6), False),
        (lease(session=6, state="gone"), False),
    ],
)
def test_a_session_is_over_when_gone_or_when_a_later_one_is_named(record: Lease, over: bool) -> None:
    assert liveness.session_over(record, 7) is over


def test_a_window_counts_from_the_end_of_the_read_that_showed_it() -> None:
    seen, verdict = look(None, lease(), began=0.0, ended=5.0)
    assert (seen, verdict) == (Sighting(7, 4, since=5.0), "alive")


def test_silent_only_when_the_deciding_read_began_after_the_window() -> None:
    seen = Sighting(7, 4, since=5.0)
    assert look(seen, lease(), began=22.9, ended=60.0) == (seen, "alive")
    assert look(seen, lease(), began=23.0, ended=23.1) == (seen, "silent")


def test_any_sign_of_life_begins_a_new_window() -> None:
    seen = Sighting(7, 4, since=5.0)
    assert look(seen, lease(seq=5), began=50.0, ended=51.0) == (Sighting(7, 5, since=51.0), "alive")
    assert look(seen, lease(session=8, seq=4), began=50.0, ended=51.0) == (Sighting(8, 4, since=51.0), "alive")


def test_the_window_is_the_records_own() -> None:
    seen = Sighting(7, 4, since=0.0)
    assert look(seen, lease(ttl_s=100.0), began=50.0, ended=50.1)[1] == "alive"
    assert look(seen, lease(ttl_s=10.0), began=13.0, ended=13.1)[1] == "silent"


def test_a_solo_machine_is_never_silent() -> None:
    assert look(Sighting(7, 4, since=0.0), lease(mode="solo"), began=1e9, ended=1e9)[1] == "alive"


def test_a_lease_that_says_gone_is_over_at_first_sight() -> None:
    assert look(None, lease(state="gone"), began=0.0, ended=0.1)[1] == "over"


@pytest.mark.parametrize("landed", [0.0, 1.0, 4.9])
@pytest.mark.parametrize("read_s", [0.0, 0.5, 3.0])
def test_a_machine_has_frozen_before_anyone_calls_it_silent(landed: float, read_s: float) -> None:
    """One clock for both, the renewal landing any time after its first attempt: the fence comes a margin earlier."""
    started = 100.0
    session = rules.renewed(SESSION, seq=5, etag="e", mode="shared", started=started, now=started + landed)
    seen, _ = look(None, lease(seq=5), began=started + landed, ended=started + landed + read_s)
    earliest = seen.since + session.ttl_s + session.margin_s
    assert look(seen, lease(seq=5), began=earliest, ended=earliest)[1] == "silent"
    assert rules.tick(session, now=earliest).state == "frozen"
    assert session.deadline <= earliest - 2 * session.margin_s


def test_a_fleet_with_other_figures_has_other_deadlines() -> None:
    short = replace(SESSION, ttl_s=3.0, margin_s=1.0)
    assert rules.renewed(short, seq=2, etag="e", mode="shared", started=101.0, now=101.5).deadline == 103.0
