"""App archives that nobody refers to: noted, kept for the retention, condemned; and whoever uses one is safe."""

from __future__ import annotations

import pytest

from fleet.core.shelf import LEAST_S, judge, noted_next, used_by, without
from node.bucket.records import Unused
from tests.unit.controller.values import NOW, spec, tenant_spec

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
DAY_S = 86400.0


def app_spec(sha256, **changes):
    return spec(spec=tenant_spec(image=None, app=sha256), **changes)


def fates(present, used, noted, now=NOW, retention_s=7 * DAY_S):
    return {f.sha256: (f.goes, f.why) for f in judge(present, used, noted, now=now, retention_s=retention_s)}


def noted(going=(), **apps):
    return Unused(nonce="n", apps={{"old": OLD, "new": NEW}[k]: at for k, at in apps.items()}, going=tuple(going))


@pytest.mark.parametrize(
    "one",
    [
        app_spec(OLD),
        app_spec(OLD, want="down"),
        app_spec(OLD, want="purged", purge_after=NOW + 1),
        app_spec(NEW, previous=tenant_spec(image=None, app=OLD)),
    ],
    ids=["up", "down", "still there to be purged", "gone back to if the new one does not get healthy"],
)
def test_an_app_is_used_by(one):
    assert OLD in used_by([one])


def test_a_tenant_that_is_purged_to_the_end_uses_nothing():
    assert used_by([app_spec(OLD, want="purged")]) == {}


def test_what_is_used_has_no_fate():
    assert fates({OLD: 1}, {OLD: "acme"}, noted(old=0.0)) == {}


def test_what_is_found_unused_is_noted_and_stays():
    found = judge({OLD: 1}, {}, noted(), now=NOW, retention_s=DAY_S)
    assert [(f.goes, f.why) for f in found] == [(False, "young")]
    assert noted_next(noted(), found, now=NOW).apps == {OLD: NOW}


def test_the_first_note_counts_and_not_the_last_look():
    found = judge({OLD: 1}, {}, noted(old=NOW - 5), now=NOW, retention_s=DAY_S)
    assert noted_next(noted(old=NOW - 5), found, now=NOW).apps == {OLD: NOW - 5}


@pytest.mark.parametrize(("age_s", "goes"), [(7 * DAY_S - 1, False), (7 * DAY_S, True)])
def test_it_goes_once_the_retention_has_passed(age_s, goes):
    assert fates({OLD: 1}, {}, noted(old=NOW - age_s))[OLD][0] is goes


def test_no_retention_is_shorter_than_any_request():
    assert not fates({OLD: 1}, {}, noted(old=NOW - LEAST_S + 1), retention_s=0)[OLD][0]


def test_a_clock_that_was_ahead_deletes_nothing():
    assert fates({OLD: 1}, {}, noted(old=NOW + 1)) == {OLD: (False, "clock")}


def test_what_was_condemned_goes_on_being_deleted():
    assert fates({OLD: 1}, {}, noted(going=(OLD,))) == {OLD: (True, "condemned")}


def test_what_is_used_again_or_not_there_any_more_is_out_of_the_record():
    before = noted(going=(OTHER,), old=0.0, new=0.0)
    found = judge({OLD: 1}, {OLD: "acme"}, before, now=NOW, retention_s=DAY_S)
    after = noted_next(before, found, now=NOW)
    assert (after.apps, after.going) == ({}, ())


def test_whoever_uses_one_takes_its_note_away():
    after = without(noted(going=(OTHER,), old=1.0, new=2.0), OLD, OTHER)
    assert (after.apps, after.going) == ({NEW: 2.0}, ())
