"""The table of states: every pair of what is wanted and what was seen."""

from __future__ import annotations

from typing import get_args

import pytest

from fleet.core.lifecycle import REASONS, SETTLED, TABLE, Sign, Want, sign_of, status
from fleet.core.model import NOTHING, Evidence
from node.api import TenantState
from tests.unit.controller.values import report

PAIRS = [(want, sign) for want in get_args(Want) for sign in get_args(Sign)]


def seen(sign):
    if sign == "node over":
        return Evidence("n1", 1, "running", None, "over")
    if sign == "no record":
        return NOTHING
    kind, state = sign.split()
    if kind == "owner":
        hold = "none" if state in ("released", "hibernated", "purged") else "live"
        return Evidence("n1", 1, state, None, hold)
    return Evidence("n1", 1, None, report(state=state, reason="r", message="m"), "live")


def test_the_table_has_a_row_for_every_pair_and_no_other():
    assert set(TABLE) == set(PAIRS)


@pytest.mark.parametrize(("want", "sign"), PAIRS)
def test_every_pair_shows_a_known_state_and_says_why(want, sign):
    shown = status(want, seen(sign), None)
    row = TABLE[want, sign]
    assert sign_of(seen(sign)) == sign
    assert shown.state == (row.state or sign.split()[1])
    assert shown.state in get_args(TenantState)
    if row.reason:
        assert (shown.reason, shown.message) == (row.reason, REASONS[row.reason])
    elif sign.startswith("reported"):
        assert (shown.reason, shown.message) == ("r", "m")


@pytest.mark.parametrize("want", get_args(Want))
def test_what_is_settled_for_a_want_is_reached_by_a_report(want):
    reached = {status(want, seen(f"reported {state}"), None).state for state in get_args(TenantState)}
    assert SETTLED[want] <= reached


def test_a_node_that_does_not_answer_leaves_the_state_and_says_so():
    away = Evidence("n1", 1, "running", report(), "away")
    assert (status("up", away, None).state, status("up", away, None).reason) == ("running", "node_unreachable")


def test_a_note_says_why_a_tenant_that_is_not_settled_does_not_go_on():
    shown = status("up", NOTHING, ("no_room", "no room for 1g"))
    assert (shown.state, shown.reason, shown.message) == ("pending", "no_room", "no room for 1g")


def test_a_refused_assignment_is_a_failure():
    assert status("up", NOTHING, ("refused", "no")).state == "failed"


def test_a_note_is_not_shown_of_a_tenant_that_is_settled():
    assert status("up", seen("reported running"), ("unsent", "old")).reason == "r"


def test_a_tenant_that_runs_but_cannot_have_its_change_says_why():
    shown = status("up", seen("reported running"), ("no_node", "n9 is not known"), done=False)
    assert (shown.state, shown.reason) == ("running", "no_node")


def test_an_unknown_sign_raises():
    strange = Evidence("n1", 1, "eaten", None, "none")
    with pytest.raises(ValueError, match="no state for want 'up'"):
        status("up", strange, None)


def test_what_runs_on_a_machine_whose_lease_is_overdue_is_shown_as_standing_still():
    away = Evidence("n1", 1, "running", report(), "away", overdue=True)
    assert (status("up", away, None).state, status("up", away, None).reason) == ("frozen", "node_overdue")
    answers = Evidence("n1", 1, "running", report(), "live", overdue=True)
    assert status("up", answers, None).state == "running"
