"""What to do next, compared as values."""

from __future__ import annotations

import time

import pytest

from fleet.core.actions import Assign, FinishPurge, MarkProven, Park, Purge, RollBack
from fleet.core.model import evidence, observed
from fleet.core.reconcile import RESEND_S, reconcile
from tests.unit.controller.values import NOW, machine, owner, report, sent, spec, tenant_spec, world

N1 = machine("n1")
N2 = machine("n2")


def decide(one, is_, now=NOW):
    return reconcile({one.tenant: one}, is_, now)


def test_a_new_tenant_is_assigned_to_a_machine():
    assert decide(spec(), world([N1])) == (Assign("acme", "n1", 1, 1, "up"),)


def test_without_a_machine_it_is_parked():
    (park,) = decide(spec(), world())
    assert isinstance(park, Park)
    assert park.reason == "no_node"


def test_what_was_sent_is_not_sent_again():
    is_ = world([N1], reports=[("n1", report(state="claiming", epoch=0, observed=0))], sent={"acme": sent()})
    assert decide(spec(), is_) == ()


@pytest.mark.parametrize(
    "old", [sent(generation=1), sent(generation=2, session=0), sent(generation=2, want="down")], ids=str
)
def test_another_generation_session_or_wish_is_sent(old):
    is_ = world([N1], [owner()], [("n1", report())], {"acme": old})
    assert decide(spec(generation=2, proven=1), is_) == (Assign("acme", "n1", 1, 2, "up"),)


def test_after_a_restart_of_the_controller_everything_is_sent_once_more():
    is_ = world([N1], [owner()], [("n1", report())])
    assert decide(spec(proven=1), is_) == (Assign("acme", "n1", 1, 1, "up"),)


def test_an_agent_that_says_nothing_of_the_tenant_is_told_again():
    is_ = world([N1], sent={"acme": sent(at=NOW - RESEND_S)})
    assert decide(spec(), is_) == (Assign("acme", "n1", 1, 1, "up"),)
    assert decide(spec(), world([N1], sent={"acme": sent(at=NOW - 1)})) == ()


def test_the_first_healthy_report_proves_the_generation():
    is_ = world([N1], [owner()], [("n1", report())], {"acme": sent()})
    assert decide(spec(), is_) == (MarkProven("acme", 1),)
    assert decide(spec(proven=1), is_) == ()


def test_a_generation_that_was_given_up_is_rolled_back():
    is_ = world([N1], [owner()], [("n1", report(observed=2, rolled_back=True))], {"acme": sent(generation=2)})
    assert decide(spec(generation=2, proven=1, previous=tenant_spec()), is_) == (RollBack("acme", 2),)


def test_an_old_roll_back_is_not_one_of_this_generation():
    is_ = world([N1], [owner()], [("n1", report(observed=2, rolled_back=True))], {"acme": sent(generation=3)})
    assert decide(spec(generation=3, previous=tenant_spec()), is_) == ()


def test_down_goes_to_whoever_has_it():
    is_ = world([N1, N2], [owner(node="n2")], [("n2", report())], {"acme": sent(node="n2")})
    assert decide(spec(generation=2, want="down"), is_) == (Assign("acme", "n2", 1, 2, "down"),)


def test_down_of_what_is_down_does_nothing():
    is_ = world([N1], [owner(state="released")], [("n1", report(state="released", observed=2))])
    assert decide(spec(generation=2, want="down"), is_) == ()


def test_down_reaches_a_node_that_was_told_up_and_has_not_begun():
    is_ = world([N1], reports=[("n1", report(state="pending", epoch=0, observed=0))], sent={"acme": sent()})
    assert decide(spec(generation=2, want="down"), is_) == (Assign("acme", "n1", 1, 2, "down"),)


def test_down_reaches_a_node_that_another_controller_told_up_and_that_has_not_begun():
    """Who begins anew knows nothing of what was sent; the node goes on waiting for its turn to begin."""
    reports = [("n1", report(state="pending", epoch=0, observed=0))]
    one = spec(generation=2, want="down")
    assert decide(one, world([N1], reports=reports)) == (Assign("acme", "n1", 1, 2, "down"),)
    told = {"acme": sent(generation=2, want="down")}
    assert decide(one, world([N1], reports=reports, sent=told)) == ()
    assert decide(one, world([machine("n1", reachable=False)], reports=reports)) == ()


@pytest.mark.parametrize("state", ["pending", "released"])
def test_a_down_that_got_no_answer_is_told_again_until_it_has_one(state):
    """The node acknowledged `up`, has not begun, and may not know of `down`: it would begin later."""
    down = sent(generation=2, want="down")
    reports = [("n1", report(state=state, epoch=0, observed=0))]
    unanswered = world([N1], reports=reports, sent={"acme": sent()}, sending={"acme": down})
    assert decide(spec(generation=2, want="down"), unanswered) == (Assign("acme", "n1", 1, 2, "down"),)
    answered = world([N1], reports=reports, sent={"acme": down})
    assert decide(spec(generation=2, want="down"), answered) == ()


def test_up_again_prefers_the_machine_with_the_volume():
    is_ = world([N1, N2], [owner(node="n2", state="released")])
    assert decide(spec(generation=3), is_) == (Assign("acme", "n2", 1, 3, "up"),)


def test_a_session_that_is_over_frees_its_tenants():
    gone = machine("n1", state="gone")
    assert decide(spec(), world([gone, N2], [owner()])) == (Assign("acme", "n2", 1, 1, "up"),)


def test_a_later_session_of_the_machine_takes_its_tenants_back():
    assert decide(spec(), world([machine("n1", session=2)], [owner()])) == (Assign("acme", "n1", 2, 1, "up"),)


def test_a_machine_that_merely_does_not_answer_keeps_its_tenants():
    away = machine("n1", reachable=False)
    assert decide(spec(), world([away, N2], [owner()], [("n1", report())])) == ()


def test_a_tenant_that_is_pinned_elsewhere_leaves_first():
    one = spec(generation=2, spec=tenant_spec(node="n2"), proven=2)
    is_ = world([N1, N2], [owner()], [("n1", report())], {"acme": sent()})
    assert decide(one, is_) == (Assign("acme", "n1", 1, 2, "down"),)
    is_ = world(
        [N1, N2],
        [owner(state="released")],
        [("n1", report(state="released"))],
        {"acme": sent(generation=2, want="down")},
    )
    assert decide(one, is_) == (Assign("acme", "n2", 1, 2, "up"),)


def test_a_tenant_does_not_leave_for_a_machine_that_cannot_have_it():
    one = spec(generation=2, spec=tenant_spec(node="n9"), proven=2)
    (park,) = decide(one, world([N1], [owner()], [("n1", report())], {"acme": sent()}))
    assert isinstance(park, Park)


def test_a_purge_goes_to_whoever_has_it_then_waits_then_deletes_then_ends():
    one = spec(generation=2, want="purged", purge_after=NOW + 10)
    is_ = world([N1], [owner()], [("n1", report())], {"acme": sent()})
    assert decide(one, is_) == (Assign("acme", "n1", 1, 2, "purged"),)
    is_ = world([N1], [owner(state="purged")], [("n1", report(state="purged", observed=2))])
    assert decide(one, is_) == ()
    assert decide(one, is_, NOW + 10) == (Purge("acme", "n1", 1),)
    emptied = world([N1], [owner(state="purged")], emptied={"acme": 1})
    assert decide(one, emptied, NOW + 10) == (FinishPurge("acme", 2),)
    assert decide(spec(generation=2, want="purged"), emptied, NOW + 10) == ()


def test_a_purge_of_what_never_was_ends_at_once():
    assert decide(spec(generation=2, want="purged", purge_after=NOW), world([N1])) == (FinishPurge("acme", 2),)


def test_a_purge_may_be_done_by_another_machine():
    is_ = world([machine("n1", state="gone"), N2], [owner(state="purged")])
    is_ = world([machine("n1", reachable=False), N2], [owner(state="purged")])
    assert decide(spec(generation=2, want="purged", purge_after=NOW), is_) == (Purge("acme", "n2", 1),)


def test_a_released_tenant_is_tombstoned_by_its_machine():
    is_ = world([N1], [owner(state="released")])
    assert decide(spec(generation=2, want="purged", purge_after=NOW), is_) == (Assign("acme", "n1", 1, 2, "purged"),)


def test_those_placed_in_one_pass_are_counted():
    small = machine("n1", capacity=N1.capacity.model_copy(update={"memory_bytes": 200 << 20}))
    first, second = reconcile({t: spec(t) for t in ("a", "b")}, world([small]), NOW)
    assert isinstance(first, Assign)
    assert isinstance(second, Park)


def test_a_zombies_report_of_an_older_epoch_is_history():
    is_ = world([N1, N2], [owner(epoch=5, node="n2")], [("n1", report(epoch=4)), ("n2", report(epoch=5))])
    assert evidence("acme", is_).node == "n2"


def test_a_newer_report_is_right_before_the_record_is_read_again():
    is_ = world([N1, N2], [owner(epoch=4, node="n1")], [("n2", report(epoch=5))])
    assert (evidence("acme", is_).node, evidence("acme", is_).epoch) == ("n2", 5)


def test_an_owner_record_does_not_say_that_the_server_is_up():
    starting = world([N1], [owner(observed_generation=1)], [("n1", report(state="starting", observed=0))])
    assert observed(spec(), evidence("acme", starting), starting.owners["acme"]) == 0
    unreported = world([N1], [owner(observed_generation=1)])
    assert observed(spec(), evidence("acme", unreported), unreported.owners["acme"]) == 0


def test_what_a_node_gave_up_for_the_spec_before_is_not_carried_out_until_that_is_written():
    is_ = world([N1], [owner()], [("n1", report(observed=2, rolled_back=True))])
    seen = evidence("acme", is_)
    pending = spec(generation=2, previous=spec().spec)
    assert observed(pending, seen, is_.owners["acme"]) == 1
    written = spec(generation=3, rolled_back=2)
    assert observed(written, seen, is_.owners["acme"]) == 2


def test_ten_thousand_tenants_with_nothing_to_do_cost_little():
    machines = [machine(f"n{i}") for i in range(100)]
    should = {f"t{i}": spec(f"t{i}", proven=1) for i in range(10_000)}
    is_ = world(
        machines,
        [owner(t, node=f"n{i % 100}") for i, t in enumerate(should)],
        [(f"n{i % 100}", report(t)) for i, t in enumerate(should)],
        {t: sent(node=f"n{i % 100}") for i, t in enumerate(should)},
    )
    begin = time.process_time()
    assert reconcile(should, is_, NOW) == ()
    print(f"reconcile of 10,000 tenants: {time.process_time() - begin:.3f} s of CPU")


def test_a_tenant_that_crashes_in_a_loop_stays_with_its_machine():
    is_ = world([N1, N2], [owner(state="claimed")], [("n1", report(state="failed", observed=1))], {"acme": sent()})
    assert decide(spec(), is_) == ()


def test_fifty_tenants_of_a_machine_that_is_gone_are_placed_in_one_pass_whatever_is_wrong_with_one():
    should = {f"t{i}": spec(f"t{i}") for i in range(50)}
    roomy = N1.capacity.model_copy(update={"memory_bytes": 64 << 30, "cpus": 16.0})
    machines = [machine("n1", state="gone"), machine("n2", capacity=roomy), machine("n3", capacity=roomy)]
    owners = [owner(t, state="damaged" if t == "t7" else "running") for t in should]
    found = reconcile(should, world(machines, owners), NOW)
    assert {a.tenant for a in found if isinstance(a, Assign)} == set(should)
    assert sorted(a.node for a in found) == ["n2"] * 25 + ["n3"] * 25
