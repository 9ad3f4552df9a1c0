"""Which controller acts: reads and times in, verdicts out."""

from __future__ import annotations

from fleet.core.leading import TTL_S, Me, judge, poked, released, taken

A, B = Me("a/127.0.0.1:7070", "http://a"), Me("b/127.0.0.1:7070", "http://b")
RECORD = taken(A, None, nonce="n")


def test_without_a_record_whoever_is_first_leads():
    assert judge(A, None, None, began=0.0, ended=0.0) == (None, "free")


def test_a_controller_that_comes_back_takes_up_its_own_lease_at_once():
    assert judge(A, None, RECORD, began=0.0, ended=0.0)[1] == "mine"


def test_a_lease_that_was_given_back_is_free_at_once():
    assert judge(B, None, released(RECORD, nonce="m"), began=0.0, ended=0.0)[1] == "free"


def test_another_ones_lease_is_free_after_its_ttl_without_a_renewal_and_not_before():
    seen, verdict = judge(B, None, RECORD, began=0.0, ended=2.0)
    assert verdict == "theirs"
    assert judge(B, seen, RECORD, began=2.0 + TTL_S - 0.01, ended=30.0)[1] == "theirs"
    assert judge(B, seen, RECORD, began=2.0 + TTL_S, ended=30.0)[1] == "free"


def test_a_renewal_begins_the_wait_anew():
    seen, _ = judge(B, None, RECORD, began=0.0, ended=0.0)
    seen, verdict = judge(B, seen, taken(A, RECORD, nonce="m"), began=TTL_S, ended=TTL_S)
    assert (verdict, seen.since) == ("theirs", TTL_S)


def test_a_word_to_the_leader_keeps_nobody_in_office():
    seen, _ = judge(B, None, RECORD, began=0.0, ended=0.0)
    assert judge(B, seen, poked(RECORD, nonce="m"), began=TTL_S, ended=TTL_S)[1] == "free"


def test_taking_over_counts_on_and_names_the_new_one():
    after = taken(B, released(poked(RECORD, nonce="m"), nonce="o"), nonce="p")
    assert (after.controller, after.url, after.seq, after.released, after.poked) == (B.name, B.url, 3, False, 1)
