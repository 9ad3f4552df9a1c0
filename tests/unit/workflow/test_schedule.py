"""Which times of a schedule are due, in every time zone and with every clock."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.workflow.core.schedule import AT_ONCE, Schedule, act, due, times
from node.workflow.errors import InvalidInput

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
YEAR = 365 * DAY


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def schedule(cron: str = "* * * * *", time_zone: str = "UTC", **more: object) -> Schedule:
    return Schedule("s", "w", cron, time_zone=time_zone, **more)  # type: ignore[arg-type]  # as the test says


def walls(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = itertools.islice(times(schedule(cron, zone), ms(after)), count)
    return [datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%dT%H:%M") for at in found]


def test_times_are_of_the_time_zone() -> None:
    assert walls("30 9 * * 1-5", "Asia/Kolkata", "2026-01-02T00:00+00:00", 3) == [
        "01-02T04:00",
        "01-05T04:00",
        "01-06T04:00",
    ]


def test_a_time_that_summer_time_leaves_out_comes_right_after_it() -> None:
    # On 29 March 2026 it is 03:00 in Vienna after 01:59.
    assert walls("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00+00:00", 2) == ["03-29T01:00", "03-30T00:30"]
    assert walls("0 30 2 * * *", "Europe/Vienna", "2026-03-28T12:00+00:00", 2) == ["03-29T01:00", "03-30T00:30"]
    assert walls("*/30 2 * * *", "Europe/Vienna", "2026-03-28T12:00+00:00", 2) == ["03-29T01:00", "03-30T00:00"]


def test_a_time_that_comes_twice_is_due_once_and_each_hour_is_due_each_hour() -> None:
    # On 25 October 2026 02:30 comes twice in Vienna: 00:30 and 01:30 UTC.
    assert walls("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00+00:00", 2) == ["10-25T00:30", "10-26T01:30"]
    assert walls("30 2 * * *", "Europe/Vienna", "2026-10-25T00:45+00:00", 1) == ["10-26T01:30"]
    assert walls("0 30 2 * * *", "Europe/Vienna", "2026-10-24T12:00+00:00", 2) == ["10-25T00:30", "10-26T01:30"]
    assert walls("*/30 2 * * *", "Europe/Vienna", "2026-10-24T12:00+00:00", 3) == [
        "10-25T00:00",
        "10-25T00:30",
        "10-26T01:00",
    ]
    assert walls("30 * * * *", "Europe/Vienna", "2026-10-24T23:00+00:00", 4) == [
        "10-24T23:30",
        "10-25T00:30",
        "10-25T01:30",
        "10-25T02:30",
    ]


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 */6 * * *", "0 0 1 * *", "5 30 2 * * *"]),
    st.sampled_from(["UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]),
    st.integers(ms("2025-01-01T00:00+00:00"), ms("2027-01-01T00:00+00:00")),
)
@settings(max_examples=150, deadline=None)
def test_times_rise_and_do_not_depend_on_where_the_walk_began(cron: str, zone: str, start: int) -> None:
    named = schedule(cron, zone)
    found = list(itertools.islice(times(named, start), 30))
    assert found[0] > start
    assert all(a < b for a, b in itertools.pairwise(found))
    for at in found[:-1]:
        assert list(itertools.islice(times(named, at), 1)) == [found[found.index(at) + 1]]
        assert next(times(named, at - 1)) == at


@pytest.mark.parametrize(
    "wrong",
    [
        {"cron": "61 * * * *"},
        {"cron": "* * *"},
        {"cron": ""},
        {"cron": "0 0 30 2 *"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "../../etc/passwd"},
        {"time_zone": ""},
        {"overlap": "both"},
        {"catchup_window_s": 1},
        {"jitter_s": -1},
        {"id": "a b"},
        {"attributes": {"a": []}},
    ],
)
def test_a_schedule_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Schedule(**{"id": "s", "workflow": "w", "cron": "* * * * *", **wrong})  # type: ignore[arg-type]  # on purpose


def test_what_was_missed_within_the_catch_up_window_is_made_up_for_and_the_rest_noted() -> None:
    now = ms("2026-01-01T12:00:30+00:00")
    found = due(schedule("0 * * * *", catchup_window_s=3 * 3600), now - DAY, now, lambda _: False)
    assert [datetime.fromtimestamp(at / 1000, UTC).hour for at in found.times] == [10, 11, 12]
    assert (found.looked_at, found.next_at) == (now, ms("2026-01-01T13:00+00:00"))
    assert found.note is not None
    assert "2025-12-31T13:00:00Z" in found.note


def test_many_missed_times_are_decided_a_hundred_at_a_time_and_none_is_left_out() -> None:
    start = ms("2026-01-01T00:00+00:00")
    now, looked_at, all_found = start + 5 * HOUR, start, list[int]()
    for _ in range(10):
        found = due(schedule(), looked_at, now, lambda _: False)
        assert len(found.times) <= AT_ONCE
        all_found += found.times
        looked_at = found.looked_at
    assert all_found == list(range(start + MINUTE, now + 1, MINUTE))


def test_jitter_is_the_same_for_one_time_and_within_its_bound() -> None:
    late = schedule(jitter_s=30)
    start = ms("2026-01-01T00:00+00:00")
    delays = [late.late_ms(start + n * MINUTE) for n in range(100)]
    assert delays == [late.late_ms(start + n * MINUTE) for n in range(100)]
    assert all(0 <= d < 30_000 for d in delays)
    assert len(set(delays)) > 50
    at = start + MINUTE
    before = due(late, start, at + late.late_ms(at) - 1, lambda _: False)
    assert (before.times, before.next_at) == ((), at + late.late_ms(at))
    assert due(late, before.looked_at, at + late.late_ms(at), lambda _: False).times == (at,)


jumps = st.lists(
    st.one_of(
        st.integers(1_000, 3 * MINUTE),
        st.sampled_from([-HOUR, -5 * MINUTE, HOUR]),
    ),
    max_size=60,
)


@given(jumps, st.booleans(), st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_whatever_the_clock_does_no_time_is_fired_twice_or_lost(jumps: list[int], year: bool, when: int) -> None:
    """Looks at any moments, a clock that goes back and ahead, an hour or a year."""
    window_s = 7200
    minutely = schedule(catchup_window_s=window_s)
    start = now = looked_at = ms("2026-01-01T00:00+00:00")
    fired: list[int] = []
    steps = list(jumps)
    if year:
        steps[when:when] = [YEAR, MINUTE, -YEAR]
    seen = [start]
    for step in steps:
        now += step
        seen.append(now)
        for _ in range(20):
            found = due(minutely, looked_at, now, fired.__contains__)
            fired += found.times
            looked_at = found.looked_at
            if found.next_at is None or found.next_at > now:
                break
    assert len(fired) == len(set(fired))
    # Time that the clock went through, in steps that no catch-up window is too short for, is covered whole.
    for before, after in itertools.pairwise(seen):
        if 0 < after - before <= window_s * 1000:
            wanted = range(-(-(before + 1) // MINUTE) * MINUTE, after + 1, MINUTE)
            assert set(wanted) <= set(fired)


@pytest.mark.parametrize(
    ("overlap", "is_open", "buffered", "actions"),
    [
        ("skip", False, (), ("start",)),
        ("skip", True, (), ("skip",)),
        ("buffer_one", True, (), ("buffer",)),
        ("buffer_one", True, (1,), ("skip",)),
        ("buffer_one", False, (1,), ("skip",)),
        ("buffer_all", True, (1,), ("buffer",)),
        ("buffer_all", False, (1,), ("buffer",)),
        ("cancel_other", True, (1,), ("cancel", "replace")),
        ("terminate_other", True, (), ("terminate", "start")),
        ("allow_all", True, (), ("start",)),
    ],
)
def test_what_becomes_of_a_time_follows_the_overlap_policy(
    overlap: str, is_open: bool, buffered: tuple[int, ...], actions: tuple[str, ...]
) -> None:
    assert act(overlap, is_open, buffered) == actions  # type: ignore[arg-type]  # one of the literals
