"""Tenants leave a machine a few at a time, each once there is a place for it: decisions compared as values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.core.actions import Assign, MarkProven
from fleet.core.drain import leaving
from fleet.core.model import Move, Sent
from fleet.core.reconcile import reconcile
from tests.unit.controller.values import NOW, machine, owner, report, spec, tenant_spec, world

DRAINED = machine("n1", cordoned=True, drain=1)
N2 = machine("n2")
THREE = ("a", "b", "c")


def up_at(node, *tenants, **changes):
    return [(node, report(t, **changes)) for t in tenants]


def sent_to(node, *tenants, want="up", move=None):
    return {t: Sent(node, 1, 1, want, NOW, move) for t in tenants}


def fleet(machines, sent=None, tenants=THREE, reports=None):
    """Tenants that run on n1, as everybody was told."""
    is_ = world(
        machines, [owner(t) for t in tenants], up_at("n1", *tenants) if reports is None else reports,
        {**sent_to("n1", *tenants), **(sent or {})},
    )  # fmt: skip
    return {t: spec(t, proven=1) for t in tenants}, is_


def actions(should, is_):
    return reconcile(should, is_, NOW)


def test_one_at_a_time_leaves_and_knows_where_to():
    should, is_ = fleet([DRAINED, N2])
    assert actions(should, is_) == (Assign("a", "n1", 1, 1, "down", Move("n1", "n2")),)


def test_as_many_at_a_time_as_was_asked_for():
    should, is_ = fleet([replace(DRAINED, drain=2), N2])
    assert [a.tenant for a in actions(should, is_)] == ["a", "b"]


def test_a_cordoned_machine_keeps_its_tenants():
    should, is_ = fleet([machine("n1", cordoned=True), N2])
    assert actions(should, is_) == ()


def test_the_next_waits_until_the_one_before_runs_elsewhere():
    move = Move("n1", "n2")
    down = sent_to("n1", "a", want="down", move=move)
    should, is_ = fleet([DRAINED, N2], down, reports=[("n1", report("a", state="stopping")), *up_at("n1", "b", "c")])
    assert actions(should, is_) == ()
    released = [("n1", report("a", state="released")), *up_at("n1", "b", "c")]
    should, is_ = fleet([DRAINED, N2], down, reports=released)
    is_.owners["a"] = owner("a", state="released")
    assert actions(should, is_) == (Assign("a", "n2", 1, 1, "up", move),)
    up = sent_to("n2", "a", move=move)
    is_ = replace(is_, sent={**is_.sent, **up})
    is_.reports["a"]["n2"] = report("a", state="starting", epoch=2, observed=0)
    assert actions(should, is_) == ()
    is_.owners["a"] = owner("a", node="n2", epoch=2)
    is_.reports["a"]["n2"] = report("a", epoch=2)
    assert actions(should, is_) == (Assign("b", "n1", 1, 1, "down", move),)


def test_one_that_is_just_being_told_to_leave_has_its_turn_and_its_place():
    two = replace(DRAINED, drain=2)
    should, is_ = fleet([DRAINED, N2])
    is_ = replace(is_, sending=sent_to("n1", "a", want="down", move=Move("n1", "n2")))
    assert reconcile(should, is_, NOW, only=["b", "c"]) == ()
    assert [one.stage for one in leaving("n1", should, is_)] == ["moving", "waiting", "waiting"]
    assert [a.tenant for a in reconcile(should, replace(is_, machines={"n1": two, "n2": N2}), NOW, only="bc")] == ["b"]
    small = machine("n2", capacity=N2.capacity.model_copy(update={"memory_bytes": 200 << 20}))
    assert reconcile(should, replace(is_, machines={"n1": two, "n2": small}), NOW, only="bc") == ()


def test_one_that_was_told_without_an_answer_keeps_its_turn_and_is_told_again():
    move = Move("n1", "n2")
    should, is_ = fleet([DRAINED, N2])
    is_ = replace(is_, sending=sent_to("n1", "a", want="down", move=move))
    assert actions(should, is_) == (Assign("a", "n1", 1, 1, "down", move),)


def test_one_that_was_told_to_leave_without_an_answer_is_told_to_stay_when_the_drain_ends():
    should, is_ = fleet([machine("n1"), N2])
    is_ = replace(is_, sending=sent_to("n1", "a", want="down", move=Move("n1", "n2")))
    assert actions(should, is_) == (Assign("a", "n1", 1, 1, "up"),)


def test_one_that_was_well_and_fails_where_it_went_keeps_its_turn():
    move = Move("n1", "n2")
    should, is_ = fleet([DRAINED, N2], sent_to("n2", "a", move=move), reports=up_at("n1", "b", "c"))
    is_.owners["a"] = owner("a", node="n2", epoch=2)
    is_.reports["a"] = {"n2": report("a", state="failed", epoch=2)}
    assert actions(should, is_) == ()
    stages = {one.tenant: one.stage for one in leaving("n1", should, is_)}
    assert stages == {"a": "stuck", "b": "waiting", "c": "waiting"}


def test_one_that_never_was_well_does_not_hold_up_the_others():
    move = Move("n1", "n2")
    should, is_ = fleet([DRAINED, N2], sent_to("n2", "a", move=move), reports=up_at("n1", "b", "c"))
    should["a"] = spec("a", proven=0)
    is_.owners["a"] = owner("a", node="n2", epoch=2)
    is_.reports["a"] = {"n2": report("a", state="failed", epoch=2)}
    assert [a.tenant for a in actions(should, is_)] == ["b"]


def test_without_room_elsewhere_it_stays_up_and_says_why():
    full = machine("n2", capacity=N2.capacity.model_copy(update={"memory_bytes": 64 << 20}))
    should, is_ = fleet([DRAINED, full])
    assert actions(should, is_) == ()
    left = leaving("n1", should, is_)
    assert [(one.stage, one.reason) for one in left] == [("stuck", "no_room")] * 3
    assert "n2 has 64m of memory" in left[0].message


def test_what_was_found_for_one_under_way_is_not_given_to_another():
    two = replace(DRAINED, drain=2)
    small = machine("n2", capacity=N2.capacity.model_copy(update={"memory_bytes": 200 << 20}))
    should, is_ = fleet([two, small])
    assert [a.tenant for a in actions(should, is_)] == ["a"]
    down = sent_to("n1", "a", want="down", move=Move("n1", "n2"))
    should, is_ = fleet([two, small], down, reports=[("n1", report("a", state="stopping")), *up_at("n1", "b", "c")])
    assert actions(should, is_) == ()


def test_one_that_is_pinned_stays_and_the_others_go():
    should, is_ = fleet([DRAINED, N2])
    should["a"] = spec("a", proven=1, spec=tenant_spec(node="n1"))
    assert [a.tenant for a in actions(should, is_)] == ["b"]
    (first, *_) = leaving("n1", should, is_)
    assert (first.stage, first.reason) == ("stuck", "pinned")
    assert "--node" in first.message


@pytest.mark.parametrize("state", ["lost", "damaged"])
def test_one_without_data_stays_and_the_others_go(state):
    should, is_ = fleet([DRAINED, N2], reports=[("n1", report("a", state=state)), *up_at("n1", "b", "c")])
    assert [a.tenant for a in actions(should, is_)] == ["b"]


def test_nobody_leaves_a_machine_whose_agent_does_not_answer():
    should, is_ = fleet([replace(DRAINED, reachable=False), N2])
    assert actions(should, is_) == ()
    assert {one.reason for one in leaving("n1", should, is_)} == {"node_unreachable"}


def test_the_end_of_a_drain_brings_back_who_is_still_there():
    down = sent_to("n1", "a", want="down", move=Move("n1", "n2"))
    should, is_ = fleet([machine("n1"), N2], down, reports=[("n1", report("a", state="stopping")), *up_at("n1", "b")])
    assert Assign("a", "n1", 1, 1, "up") in actions(should, is_)


def test_a_tenant_that_is_to_be_down_is_no_concern_of_a_drain():
    should, is_ = fleet([DRAINED, N2], tenants=("a",))
    should["a"] = spec("a", generation=2, want="down", proven=1)
    assert actions(should, is_) == (Assign("a", "n1", 1, 2, "down"),)
    assert leaving("n1", should, is_) == ()


def test_a_machine_that_dies_under_a_drain_loses_everybody_at_once():
    down = sent_to("n1", "a", want="down", move=Move("n1", "n2"))
    should, is_ = fleet([replace(DRAINED, state="gone"), N2], down)
    assert {(a.tenant, a.node, a.want) for a in actions(should, is_)} == {(t, "n2", "up") for t in THREE}


def test_a_later_failover_of_one_that_was_moved_is_no_move():
    gone = machine("n2", state="gone")
    should, is_ = fleet(
        [DRAINED, gone, machine("n3")], sent_to("n2", "a", move=Move("n1", "n2")), tenants=("a",), reports=[]
    )
    is_.owners["a"] = owner("a", node="n2", epoch=2)
    assert actions(should, is_) == (Assign("a", "n3", 1, 1, "up"),)
    assert leaving("n1", should, is_) == ()


class _Agents:
    """Machines that do what they are told, one step at a time; `down` fails where it cannot be confirmed."""

    def __init__(self, tenants, at_once, room, unconfirmed):
        self.should = {t: spec(t, proven=1) for t in tenants}
        self.machines = {
            "n1": machine("n1", cordoned=True, drain=at_once),
            "n2": machine("n2", capacity=N2.capacity.model_copy(update={"memory_bytes": room * (128 << 20)})),
        }
        self.at = dict.fromkeys(tenants, ("n1", "running", 1))
        self.sent, self.sending, self.unconfirmed = {}, {}, unconfirmed

    def is_(self):
        held = {"running": "running", "starting": "claimed", "stopping": "running", "released": "released"}
        return world(
            self.machines.values(),
            [owner(t, node=n, epoch=e, state=held[s]) for t, (n, s, e) in self.at.items()],
            [
                (n, report(t, state=s, epoch=e, observed=0 if s == "starting" else 1))
                for t, (n, s, e) in self.at.items()
            ],
            self.sent,
            sending=self.sending,
        )

    def told(self, action, *, arrives=True, answered=True):
        if isinstance(action, MarkProven):
            return
        sent = Sent(action.node, 1, 1, action.want, NOW, action.move)
        if answered:
            self.sending.pop(action.tenant, None)
            self.sent[action.tenant] = sent
        else:
            self.sending[action.tenant] = sent
        if not (arrives or answered):
            return
        node, state, epoch = self.at[action.tenant]
        if action.want == "down":
            self.at[action.tenant] = (node, "stopping", epoch)
        elif node != action.node:
            assert state == "released", "nobody may claim what is held elsewhere"
            self.at[action.tenant] = (action.node, "starting", epoch + 1)

    def goes_on(self, tenant):
        node, state, epoch = self.at[tenant]
        if state == "stopping" and tenant not in self.unconfirmed:
            self.at[tenant] = (node, "released", epoch)
        elif state == "starting":
            self.at[tenant] = (node, "running", epoch)


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(st.data())
def test_a_drain_never_has_more_under_way_than_it_may_and_ends_with_nobody_who_could_go(data):
    tenants = [f"t{i}" for i in range(data.draw(st.integers(1, 6)))]
    at_once, room = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 6))
    unconfirmed = set(data.draw(st.lists(st.sampled_from(tenants), max_size=at_once - 1, unique=True)))
    agents = _Agents(tenants, at_once, room, unconfirmed)
    for _ in range(60):
        busy = set(data.draw(st.lists(st.sampled_from(tenants), unique=True)))  # no answer yet
        for action in reconcile(agents.should, agents.is_(), NOW, only=[t for t in tenants if t not in busy]):
            agents.told(action, arrives=data.draw(st.booleans()), answered=data.draw(st.booleans()))
        away = [t for t, (_, state, _) in agents.at.items() if state != "running"]
        assert len(away) <= at_once
        assert sum(node == "n2" or state == "released" for node, state, _ in agents.at.values()) <= room
        moving = [t for t in away if t not in unconfirmed or agents.at[t][1] != "stopping"]
        for tenant in moving:
            if data.draw(st.booleans()):
                agents.goes_on(tenant)
    for _ in range(60):
        for action in reconcile(agents.should, agents.is_(), NOW):
            agents.told(action)
        for tenant in tenants:
            agents.goes_on(tenant)
    left = [t for t in tenants if agents.at[t][0] == "n1"]
    taken = {t for t in unconfirmed if agents.at[t][1] == "stopping"}
    assert len([t for t in left if t not in taken]) == max(0, len(tenants) - max(room, len(taken)))
