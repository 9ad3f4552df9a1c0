"""When a lease is read, and when its silence ends a session: a virtual clock, no bucket."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.core.silence import SOLO_S, after_failure, after_read, overdue
from node.bucket.liveness import gone
from node.bucket.records import Capacity, Lease

TTL_S, MARGIN_S = 15.0, 3.0
WINDOW_S = TTL_S + MARGIN_S


def lease(seq=1, **changes):
    values = {
        "node": "n1", "session": 1, "seq": seq, "ttl_s": TTL_S, "margin_s": MARGIN_S, "url": "http://n1",
        "state": "active", "mode": "shared", "capacity": Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1),
    }  # fmt: skip
    return Lease(nonce="n", **{**values, **changes})


@dataclass
class Machine:
    """Renews at these times; `fails` are spans in which the bucket answers nobody."""

    renewals: list
    fails: tuple = ()
    reads: int = 0
    history: list = field(default_factory=list)

    def lease_at(self, now):
        return lease(seq=1 + sum(at <= now for at in self.renewals))

    def observe(self, until, delay_s=0.05, start=0.0):
        """Read whenever it is due; answers when it was found silent, None if it was not."""
        track, now = None, start
        while now < until:
            self.reads += 1
            answered = now + delay_s
            if any(a <= now < b for a, b in self.fails):
                track = after_failure(track, lease(), ended=answered) if track is not None else None
            else:
                track = after_read(track, self.lease_at(now), began=now, ended=answered)
                self.history.append(track)
                if track.verdict == "silent":
                    return now
            now = track.due if track is not None else answered + 0.5
        return None


def every(period_s, until, first=0.0):
    return [first + i * period_s for i in range(int((until - first) / period_s) + 1)]


def test_a_machine_that_renews_is_never_silent():
    assert Machine(every(5.0, 600)).observe(600) is None


def test_its_end_is_known_a_step_after_its_last_renewal_and_the_window():
    for first in (0.0, 0.3, 1.9, 4.99):
        renewals = every(5.0, 100.0, first=first)
        last = renewals[-1]
        at = Machine(renewals).observe(200)
        assert WINDOW_S <= at - last <= WINDOW_S + 0.7


def test_a_read_and_a_half_see_every_renewal():
    machine = Machine(every(5.0, 1000))
    machine.observe(1000)
    assert machine.reads / 200 < 1.8


def test_the_deciding_read_begins_after_the_window_which_counts_from_the_end_of_the_first():
    first = after_read(None, lease(), began=10.0, ended=14.0)
    assert after_read(first, lease(), began=14.0 + WINDOW_S - 0.01, ended=40.0).verdict == "alive"
    # steady: reads in between were answered
    between = first
    for at in (18.0, 22.0, 26.0, 30.0):
        between = after_read(between, lease(), began=at, ended=at + 0.1)
    assert between.due <= 14.0 + WINDOW_S
    assert after_read(between, lease(), began=14.0 + WINDOW_S, ended=40.0).verdict == "silent"


def test_a_renewal_in_the_last_moment_begins_a_new_window():
    track = after_read(None, lease(seq=4), began=0.0, ended=0.0)
    for at in range(1, 18):
        track = after_read(track, lease(seq=4), began=float(at), ended=float(at))
    track = after_read(track, lease(seq=5), began=18.0, ended=18.0)
    assert (track.verdict, track.sighting.since) == ("alive", 18.0)


def test_a_session_that_is_over_is_not_read_again():
    assert after_read(None, gone(lease(), nonce="m"), began=0.0, ended=0.0).due is None


def test_solo_is_never_silent_and_seldom_read():
    track = after_read(None, lease(mode="solo"), began=0.0, ended=0.0)
    for at in (30.0, 60.0, 9000.0):
        assert track.due == pytest.approx(track.read_at + SOLO_S)
        track = after_read(track, lease(mode="solo"), began=at, ended=at)
        assert track.verdict == "alive"


def test_after_an_outage_of_the_bucket_a_machine_has_the_time_of_a_renewal():
    outage = (100.0, 160.0)
    back = Machine([*every(5.0, 99.0), *every(5.0, 600.0, first=162.0)], fails=(outage,))
    assert back.observe(600) is None
    dead = Machine(every(5.0, 99.0), fails=(outage,))
    assert 160.0 + TTL_S / 3 <= dead.observe(600) <= 160.0 + TTL_S / 3 + 1.5


def test_one_failed_read_does_not_put_the_decision_off():
    dead = Machine(every(5.0, 100.0), fails=((117.0, 117.6),))
    assert dead.observe(300) <= 100.0 + WINDOW_S + 1.2


@settings(deadline=None, max_examples=100)  # the machine may be busy
@given(st.lists(st.floats(0.1, 40.0), max_size=30), st.floats(0.0, 3.0))
def test_nobody_is_silent_within_the_window_of_a_renewal(pauses, delay_s):
    renewals, at = [], 0.0
    for pause in pauses:
        at += pause
        renewals.append(at)
    machine = Machine(renewals)
    found = machine.observe(at + 100.0, delay_s=delay_s)
    assert found is not None
    assert all(not found - WINDOW_S < renewal <= found for renewal in renewals)


def test_a_lease_is_overdue_once_its_machine_must_stand_still_and_not_once_it_is_gone():
    first = after_read(None, lease(), began=0.0, ended=0.0)
    assert not overdue(after_read(first, lease(), began=TTL_S, ended=TTL_S), lease())
    late = after_read(first, lease(), began=TTL_S + 0.1, ended=TTL_S + 0.1)
    assert overdue(late, lease())
    assert not overdue(late, gone(lease(), nonce="m"))
    assert not overdue(late, lease(mode="solo"))
    assert not overdue(after_read(late, lease(seq=2), began=16.0, ended=16.0), lease(seq=2))
