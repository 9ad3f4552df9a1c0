"""Changes of what should be."""

from __future__ import annotations

import pytest

from fleet.core import change
from fleet.core.change import PURGE_DELAY_S, Refused
from node.bucket.records import Restore
from tests.unit.controller.values import NOW, spec, tenant_spec

LATER = NOW + 60
OTHER = tenant_spec(image="server:2")


def test_a_new_tenant_is_generation_one():
    new = change.put(None, "acme", tenant_spec(), NOW)
    assert (new.generation, new.want, new.created_at) == (1, "up", NOW)


def test_the_same_spec_again_is_no_change():
    assert change.put(spec(), "acme", tenant_spec(), LATER) is None


def test_a_changed_spec_is_the_next_generation_and_remembers_the_proven_one():
    new = change.put(spec(generation=4, proven=4), "acme", OTHER, LATER)
    assert (new.generation, new.spec, new.previous, new.updated_at) == (5, OTHER, tenant_spec(), LATER)


def test_an_unproven_spec_is_not_what_is_gone_back_to():
    new = change.put(spec(generation=4, proven=3, previous=tenant_spec(image="server:0")), "acme", OTHER, LATER)
    assert new.previous == tenant_spec(image="server:0")


def test_the_proven_spec_survives_going_down():
    down = change.stop(spec(generation=4, proven=4), LATER)
    assert change.put(down, "acme", OTHER, LATER).previous == tenant_spec()


def test_up_of_a_stopped_tenant_is_a_change_even_with_the_same_spec():
    new = change.put(spec(want="down"), "acme", tenant_spec(), LATER)
    assert (new.generation, new.want) == (2, "up")


def test_database_files_cannot_change():
    with pytest.raises(Refused, match=r"the database files of acme are app\.db and can't change") as refused:
        change.put(spec(), "acme", tenant_spec(databases=("other.db",)), LATER)
    assert (refused.value.field, refused.value.bad_input) == ("spec.databases", True)


def test_stopping_twice_is_once():
    assert change.stop(spec(want="down"), LATER) is None


def test_each_restart_counts():
    assert change.restart(spec(restarts=2), LATER).restarts == 3


def test_a_stopped_tenant_is_not_restarted():
    with pytest.raises(Refused, match="acme is down"):
        change.restart(spec(want="down"), LATER)


def test_a_restore_happens_once_for_its_id():
    ask = Restore(id="r1", at=NOW)
    once = change.restore(spec(), ask, None, LATER)
    assert (once.generation, once.restore, once.want) == (2, ask, "up")
    assert change.restore(once, ask, None, LATER) is None


def test_an_id_cannot_mean_two_restores():
    once = change.restore(spec(), Restore(id="r1", at=NOW), None, LATER)
    with pytest.raises(Refused, match="other values"):
        change.restore(once, Restore(id="r1", at=NOW - 5), None, LATER)


def test_a_restore_may_name_its_machine():
    assert change.restore(spec(), Restore(id="r1"), "n2", LATER).spec.node == "n2"


def test_a_purge_keeps_the_data_for_a_day():
    purged = change.purge(spec(), NOW, at_once=False)
    assert (purged.want, purged.purge_after) == ("purged", NOW + PURGE_DELAY_S)


def test_a_purge_can_be_hurried_but_not_put_off():
    purged = change.purge(spec(), NOW, at_once=False)
    assert change.purge(purged, NOW, at_once=True).purge_after == NOW
    assert change.purge(purged, LATER, at_once=False) is None


def test_a_tenant_under_purge_is_not_made_anew():
    with pytest.raises(Refused, match="--now"):
        change.put(change.purge(spec(), NOW, at_once=False), "acme", tenant_spec(), LATER)


def test_after_the_purge_the_name_is_free_and_generations_go_on():
    done = change.purge_done(change.purge(spec(), NOW, at_once=True))
    new = change.put(done, "acme", tenant_spec(databases=("other.db",)), LATER)
    assert (new.generation, new.want, new.created_at, new.restarts) == (3, "up", LATER, 0)


@pytest.mark.parametrize("what", [change.stop, change.restart])
def test_nothing_is_asked_of_a_purged_tenant(what):
    with pytest.raises(Refused, match="purged"):
        what(change.purge(spec(), NOW, at_once=True), LATER)


def test_a_purged_tenant_is_not_restored():
    with pytest.raises(Refused, match="can't be restored"):
        change.restore(change.purge(spec(), NOW, at_once=True), Restore(id="r"), None, LATER)


def test_a_roll_back_is_a_new_generation_that_says_which_one_failed():
    bad = spec(generation=7, spec=OTHER, previous=tenant_spec())
    back = change.rolled_back(bad, LATER)
    assert (back.generation, back.spec, back.previous, back.rolled_back) == (8, tenant_spec(), None, 7)
    assert change.put(back, "acme", OTHER, LATER).rolled_back == 0


def test_proving_is_no_new_generation():
    done = change.proven(spec(generation=3, previous=OTHER))
    assert (done.generation, done.proven, done.previous) == (3, 3, None)


def test_differences_name_their_path():
    new = tenant_spec(limits={"memory": "256m"}, env={"A": "1"})
    assert change.differences(tenant_spec(), new) == [("env.A", None, "1"), ("limits.memory", 128 << 20, 256 << 20)]


def test_a_label_restarts_nothing():
    assert not change.restarts(tenant_spec(), tenant_spec(labels={"team": "a"}))
    assert change.restarts(tenant_spec(), tenant_spec(env={"A": "1"}))
    assert not change.restarts(None, tenant_spec())
