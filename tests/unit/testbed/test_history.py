"""The checker of histories finds each kind of lie, and finds none in the truth."""

from __future__ import annotations

from typing import Any

from tests.testbed.history import Call, Slack, longest_silence_s, lost, wrong


def write(number: int, at: float, *, epoch: int = 1, client: str = "w", ok: bool = True, via: str = "a") -> Call:
    return Call(client, "write", at, at + 0.5, ok, epoch, number, via=via)


def read(at: float, *, epoch: int = 1, via: str = "a", **seen: int) -> Call:
    return Call("r", "read", at, at + 0.5, ok=True, epoch=epoch, seen=seen, via=via)


TRUTH = [write(1, 1), read(2, w=1), write(2, 3), write(3, 4, ok=False), write(4, 10, epoch=2), read(11, epoch=2, w=4)]
ROWS = ["w.1", "w.2", "w.4"]


def zero(calls: list[Call], rows: list[str], **more: Any) -> list[str]:
    return wrong(calls, rows, rpo_zero=True, **more)


def second(calls: list[Call], rows: list[str], **more: Any) -> list[str]:
    return wrong(calls, rows, rpo_zero=False, **more)


def test_the_truth_is_not_wrong() -> None:
    assert zero(TRUTH, ROWS) == []
    assert second(TRUTH, ROWS) == []


def test_what_nobody_was_promised_may_be_there_or_not() -> None:
    assert zero(TRUTH, [*ROWS, "w.3"]) == []
    assert second(TRUTH, [*ROWS, "w.3"]) == []


def test_an_acknowledged_write_that_is_missing_is_found() -> None:
    [said] = zero(TRUTH, ["w.1", "w.4"])
    assert "w.2" in said
    assert "missing" in said
    assert lost(TRUTH, ["w.1", "w.4"]) == 1


def test_a_row_that_is_there_twice_is_found() -> None:
    for check in (zero, second):
        [said] = check(TRUTH, [*ROWS, "w.2"])
        assert "w.2" in said
        assert "twice" in said


def test_a_row_that_nobody_wrote_is_found() -> None:
    for check in (zero, second):
        assert check(TRUTH, [*ROWS, "w.99"]) == ["row w.99 is there and nobody wrote it"]


def test_a_value_that_goes_back_within_an_epoch_is_found_whatever_the_rpo() -> None:
    calls = [*TRUTH, read(12, epoch=2, w=5), read(13, epoch=2, w=4)]
    assert any("shows w at 4" in said for said in zero(calls, ROWS))
    assert any("shows w at 4" in said for said in second(calls, ROWS))


def test_a_value_that_was_never_acknowledged_may_go_back_with_its_epoch() -> None:
    calls = [write(1, 1), read(2, w=7), *(write(n, n + 10.0, ok=False) for n in range(2, 8)), read(30, epoch=2, w=1)]
    assert zero(calls, ["w.1"]) == []


def test_a_read_that_does_not_show_what_was_acknowledged_before_it_is_found() -> None:
    calls = [write(1, 1), write(2, 2), read(10, epoch=2, w=1)]
    [said] = zero(calls, ["w.1", "w.2"])
    assert "shows w at 1" in said


def test_a_read_that_began_before_the_acknowledgement_need_not_show_it() -> None:
    assert zero([write(1, 1), Call("r", "read", 1.2, 5.0, ok=True, epoch=1, seen={})], ["w.1"]) == []


def test_two_epochs_that_acknowledge_are_found() -> None:
    calls = [write(1, 1), write(2, 5, epoch=2), write(1, 6, epoch=1, client="v")]
    assert any("answered by epoch 1 after" in said for said in zero(calls, ["w.1", "w.2", "v.1"]))


def test_two_epochs_whose_answers_overlap_may_have_been_in_order() -> None:
    calls = [write(1, 1, epoch=2), write(1, 1.2, epoch=1, client="v")]
    assert zero(calls, ["w.1", "v.1"]) == []


def test_an_old_copy_that_still_answers_reads_is_found() -> None:
    calls = [*TRUTH, read(12, epoch=1, w=2)]
    for check in (zero, second):
        assert any("answered by epoch 1 after" in said for said in check(calls, ROWS))


def test_a_machine_whose_clock_stood_still_may_show_what_is_old_for_a_moment_and_no_longer() -> None:
    stale = read(12, epoch=1, via="a", w=2)
    assert zero([*TRUTH, stale], ROWS, slack=[Slack("a", 11, 13)]) == []
    assert zero([*TRUTH, stale], ROWS, slack=[Slack("b", 11, 13)])
    assert zero([*TRUTH, stale], ROWS, slack=[Slack("a", 5, 8)])


def test_no_clock_excuses_an_acknowledgement() -> None:
    calls = [*TRUTH, write(1, 12, epoch=1, client="v")]
    assert zero(calls, [*ROWS, "v.1"], slack=[Slack("a", 11, 13)])


def test_with_an_rpo_an_epoch_that_is_over_may_have_lost_its_end() -> None:
    calls = [write(n, float(n)) for n in range(1, 6)] + [write(6, 20, epoch=2)]
    assert second(calls, ["w.1", "w.2", "w.6"]) == []
    assert lost(calls, ["w.1", "w.2", "w.6"]) == 3


def test_with_an_rpo_a_hole_is_found() -> None:
    calls = [write(n, float(n)) for n in range(1, 6)] + [write(6, 20, epoch=2)]
    [said] = second(calls, ["w.1", "w.3", "w.6"])
    assert "w.2" in said
    assert "later ones of its epoch are there" in said


def test_with_an_rpo_the_last_epoch_has_lost_nothing() -> None:
    [said] = second([write(1, 1), write(2, 2)], ["w.1"])
    assert "its epoch is the last one" in said


def test_the_longest_silence_counts_from_the_beginning_to_the_end() -> None:
    assert longest_silence_s(TRUTH, 0.0, 10.5) == 7.0
    assert longest_silence_s([], 0.0, 10.0) == 10.0
