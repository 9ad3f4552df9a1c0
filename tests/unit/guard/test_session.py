"""The rules of a session, with the clock as a number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.agent.custody import session as rules
from node.agent.custody.session import EVENTS, STATES, TABLE, Event, Forbidden, Session, State
from node.api import FENCES

TTL_S, MARGIN_S = 15.0, 3.0
NEW = Session(node="n1", ttl_s=TTL_S, margin_s=MARGIN_S, mode="shared")


def settling(started: float = 100.0, now: float = 100.1) -> Session:
    return rules.begun(NEW, number=7, etag="e1", started=started, now=now)


def active(started: float = 100.0, now: float = 100.2) -> Session:
    return rules.settled(settling(started), number=7, now=now)


def solo() -> Session:
    return rules.settled(
        rules.begun(replace(NEW, mode="solo"), number=7, etag="e1", started=100.0, now=100.1), number=7, now=100.2
    )


def frozen(now: float = 112.0) -> Session:
    return rules.tick(active(), now=now)


def renew(session: Session, *, started: float, now: float) -> Session:
    return rules.renewed(session, seq=session.seq + 1, etag="e2", mode="shared", started=started, now=now)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_pair_is_in_the_table_or_forbidden(state: State, event: Event) -> None:
    if (state, event) in TABLE:
        assert rules.next_state(state, event) in STATES
    else:
        with pytest.raises(Forbidden, match=state):
            rules.next_state(state, event)


def test_the_table_leads_nowhere_it_should_not() -> None:
    """Who may run is reached from `settling` and `frozen` alone, and nothing comes back from `gone`."""
    to_active = {state for (state, _), after in TABLE.items() if after == "active"}
    assert to_active == {"settling", "active", "frozen"}  # and not `hung`: it is renewed first
    assert {event for (_, event), after in TABLE.items() if after == "settling"} == {"begun", "renewed", "deadline"}
    assert not [pair for pair in TABLE if pair[0] == "gone"]
    assert {state for (state, event) in TABLE if event == "stop"} == set(STATES) - {"gone"}
    assert {state for (state, event) in TABLE if event == "lost"} == set(STATES) - {"gone"}


@pytest.mark.parametrize("state", STATES)
def test_only_an_active_or_stopping_session_lets_tenants_run(state: State) -> None:
    session = replace(active(), state=state)
    assert session.live(now=101.0) == (state in ("active", "stopping"))
    assert session.must_freeze(now=101.0) == (state not in ("active", "stopping"))


def test_a_new_session_stands_still_until_it_is_settled() -> None:
    assert NEW.must_freeze(now=0.0)
    assert settling().must_freeze(now=100.1)
    assert not active().must_freeze(now=100.2)


def test_the_deadline_counts_from_the_start_of_the_first_attempt() -> None:
    session = renew(active(), started=105.0, now=109.0)
    assert session.deadline == 105.0 + TTL_S - MARGIN_S
    assert session.live(now=116.9)
    assert not session.live(now=117.0)


def test_at_the_deadline_it_freezes() -> None:
    assert rules.tick(active(), now=111.9).state == "active"
    after = rules.tick(active(), now=112.0)
    assert (after.state, after.frozen_at, after.reason) == ("frozen", 112.0, "store_unreachable")


def test_an_answer_after_the_deadline_does_not_count() -> None:
    after = renew(active(), started=105.0, now=112.5)
    assert after.state == "frozen"
    assert after.deadline == 112.0
    assert (after.seq, after.etag) == (2, "e2")


def test_a_renewal_that_began_after_the_freeze_thaws() -> None:
    after = renew(frozen(), started=200.0, now=200.1)
    assert (after.state, after.frozen_at, after.deadline) == ("active", None, 212.0)
    assert after.session == 7


def test_a_renewal_that_began_before_the_freeze_does_not_thaw() -> None:
    after = renew(frozen(), started=111.0, now=113.0)
    assert after.state == "frozen"
    assert after.etag == "e2"


def test_a_renewal_that_took_longer_than_it_grants_does_not_thaw() -> None:
    assert renew(frozen(), started=200.0, now=212.0).state == "frozen"
    assert renew(frozen(), started=200.0, now=211.9).state == "active"


def test_somebody_elses_write_ends_the_session() -> None:
    for session in (settling(), active(), frozen()):
        assert rules.lost(session).state == "revoked"


def test_while_leaving_somebody_elses_write_ends_everything() -> None:
    assert rules.lost(rules.stop(active())).state == "gone"


def test_ten_minutes_frozen_give_the_session_up() -> None:
    assert rules.tick(frozen(), now=112.0 + 599.9).state == "frozen"
    after = rules.tick(frozen(), now=112.0 + 600.0)
    assert (after.state, after.reason) == ("revoked", "store_unreachable")


def test_a_renewal_that_lands_after_giving_up_changes_nothing_but_the_etag() -> None:
    revoked = rules.tick(frozen(), now=800.0)
    after = renew(revoked, started=700.0, now=801.0)
    assert (after.state, after.etag) == ("revoked", "e2")


def test_settling_is_of_one_session_only() -> None:
    assert rules.settled(settling(), number=6, now=101.0) == settling()
    assert rules.settled(settling(), number=7, now=101.0).state == "active"


def test_settled_after_the_deadline_is_frozen_at_once() -> None:
    after = rules.settled(settling(), number=7, now=112.0)
    assert after.state == "frozen"


def test_settled_said_again_changes_nothing() -> None:
    assert rules.settled(active(), number=7, now=101.0).state == "active"


def test_settling_is_renewed_while_it_takes_long() -> None:
    after = renew(settling(), started=105.0, now=105.1)
    assert (after.state, after.deadline) == ("settling", 117.0)


def test_a_solo_machine_never_freezes_for_an_outage() -> None:
    assert rules.tick(solo(), now=1e9).state == "active"
    assert solo().live(now=1e9)


def test_a_solo_machine_whose_lease_was_taken_is_over_all_the_same() -> None:
    assert rules.lost(solo()).state == "revoked"


def test_the_switch_to_shared_binds_from_the_first_attempt_that_says_so() -> None:
    switched = rules.switched(solo(), mode="shared", started=500.0)
    assert switched.deadline == 512.0
    assert rules.tick(switched, now=512.0).state == "frozen"


def test_the_switch_back_to_solo_counts_only_once_confirmed() -> None:
    switched = rules.switched(active(), mode="solo", started=105.0)
    assert switched.mode == "shared"
    after = rules.renewed(switched, seq=2, etag="e2", mode="solo", started=105.0, now=105.1)
    assert after.mode == "solo"
    assert rules.tick(after, now=1e9).state == "active"


def test_leaving_waits_for_the_release_and_ends() -> None:
    leaving = rules.stop(active())
    assert leaving.state == "stopping"
    assert leaving.live(now=101.0)
    assert rules.stop(leaving).state == "stopping"
    assert renew(leaving, started=105.0, now=105.1).state == "stopping"
    assert rules.released(leaving).state == "gone"


def test_leaving_ends_at_the_deadline() -> None:
    assert rules.tick(rules.stop(active()), now=112.0).state == "gone"


@pytest.mark.parametrize("session", [NEW, settling(), frozen(), rules.lost(active())])
def test_what_stands_still_leaves_at_once(session: Session) -> None:
    after = rules.stop(session)
    assert after.state == "gone"
    assert rules.stop(after) == after


def test_released_means_something_only_while_leaving() -> None:
    assert rules.released(active()) == active()


@pytest.mark.parametrize(
    ("session", "same_boot", "now", "expected"),
    [
        (active(), True, 111.9, True),
        (active(), True, 112.0, False),
        (active(), False, 101.0, False),
        (replace(active(), etag=None), True, 101.0, False),
        (settling(), True, 101.0, False),
        (frozen(), True, 113.0, False),
        (rules.lost(active()), True, 101.0, False),
        (rules.stop(active()), True, 101.0, False),
        (solo(), True, 1e9, True),
        (solo(), False, 101.0, False),
    ],
)
def test_who_may_go_on_in_the_same_session(session: Session, same_boot: bool, now: float, expected: bool) -> None:
    assert rules.may_resume(session, same_boot=same_boot, now=now) is expected


def test_each_reason_of_a_fence_is_its_own() -> None:
    """Table: what was seen, and what is said. None is mixed up with another."""
    seen = {
        "store_unreachable": rules.tick(active(), now=112.1, looked=111.8, asked=105.0),
        "guard_paused": rules.tick(active(), now=300.0, looked=104.0, asked=None),
        "lease_lost": rules.lost(active()),
        "agent_hung": rules.silent(active(), now=105.0),
    }
    assert {reason: session.reason for reason, session in seen.items()} == {r: r for r in FENCES}
    assert all(session.must_freeze(now=105.0) for session in seen.values())


@pytest.mark.parametrize(
    ("looked", "asked", "reason"),
    [
        (111.5, 105.0, "store_unreachable"),  # a question was open all the time
        (111.5, None, "store_unreachable"),
        (110.0, 105.0, "store_unreachable"),  # it stood still for the last two seconds of an outage of seven
        (104.9, None, "guard_paused"),
        (105.1, 105.0, "guard_paused"),  # the pause began with a question that had no time to be answered
        (None, None, "store_unreachable"),
    ],
)
def test_a_deadline_that_passed_while_nobody_looked_is_not_the_stores_fault(
    looked: float | None, asked: float | None, reason: str
) -> None:
    assert rules.tick(active(), now=130.0, looked=looked, asked=asked).reason == reason


def test_a_machine_whose_agent_says_nothing_stands_still_and_lets_its_lease_run_out() -> None:
    hung = rules.silent(active(), now=105.0)
    assert (hung.state, hung.frozen_at) == ("hung", 105.0)
    assert rules.tick(hung, now=5000.0) == hung
    assert renew(hung, started=105.0, now=105.1).state == "hung"


def test_an_agent_that_is_back_lets_it_go_on_after_one_more_renewal() -> None:
    back = rules.heard(rules.silent(active(), now=105.0), now=900.0)
    assert (back.state, back.reason) == ("frozen", "agent_hung")
    assert renew(back, started=900.0, now=900.1).state == "active"
    assert rules.lost(back).state == "revoked"


def test_alone_a_machine_runs_on_without_its_agent() -> None:
    assert rules.silent(solo(), now=1e6) == solo()


def test_what_stands_still_already_does_not_change_its_reason_for_a_silent_agent() -> None:
    assert rules.silent(frozen(), now=120.0) == frozen()
