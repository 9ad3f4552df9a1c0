"""When a sidecar is restarted, a tenant is behind, a foreign writer is fenced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.agent.custody import watchdog
from node.agent.custody.values import FileLag
from node.agent.custody.watchdog import Limits, Seen, Verdict

LIMITS = Limits(stuck_s=20, silent_s=15, call_s=45, foreign_s=10, first_wait_s=5, longest_wait_s=40)
Looks = list[tuple[float, tuple[int, int] | None]]


def run(looks: Looks, lag: float | None = None, call: float | None = None) -> list[tuple[float, Verdict]]:
    watch, found = watchdog.start(0.0), []
    for at, files in looks:
        seen = Seen(at, {"app.db": FileLag(*files)} if files else None, lag if files else None, call)
        watch, verdicts = watchdog.look(watch, seen, LIMITS, behind_s=60)
        found += [(at, v) for v in verdicts]
    return found


RESTARTS: list[tuple[str, Looks, list[tuple[float, Verdict]]]] = [
    ("idle for an hour", [(t, (5, 5)) for t in range(0, 3600, 5)], []),
    ("lagging and moving", [(t, (100 + t, t)) for t in range(0, 100, 5)], []),
    ("standing still with lag", [(t, (9, 5)) for t in range(0, 25, 5)], [(20, Verdict.RESTART)]),
    ("standing still without lag", [(t, (9, 9)) for t in range(0, 100, 5)], []),
    ("a file that does not exist yet", [(t, (0, 0)) for t in range(0, 100, 5)], []),
    ("silent", [(5, (5, 5)), (10, None), (15, None), (20, None)], [(20, Verdict.RESTART)]),
    ("silent, then back", [(5, (5, 5)), (10, None), (15, (5, 5)), (20, None), (25, (6, 6))], []),
    ("a foreign writer", [(t, (5, 9)) for t in (0, 5, 10)], [(10, Verdict.FOREIGN_WRITER)]),
    ("above for a moment", [(0, (5, 9)), (5, (9, 9)), (10, (9, 12)), (15, (12, 12))], []),
]


@pytest.mark.parametrize(("why", "looks", "expected"), RESTARTS, ids=[row[0] for row in RESTARTS])
def test_what_a_series_of_looks_leads_to(why: str, looks: Looks, expected: list[tuple[float, Verdict]]) -> None:
    assert run(looks) == expected


def test_a_confirming_call_that_hangs_restarts_it_though_the_socket_answers() -> None:
    assert run([(5, (5, 5))], call=44) == []
    assert run([(5, (5, 5))], call=45) == [(5, Verdict.RESTART)]


def test_a_large_upload_gets_time_in_proportion_before_it_is_taken_for_a_hang() -> None:
    gib = 1 << 30
    slow, still = LIMITS.uploading(gib), Seen(500.0, {"app.db": FileLag(9, 5)}, 500.0)
    watch, _ = watchdog.look(watchdog.start(0.0), replace(still, at=0.0), slow, behind_s=1e9)
    assert watchdog.look(watch, still, slow, behind_s=1e9)[1] == ()
    assert watchdog.look(watch, replace(still, at=535.0), slow, behind_s=1e9)[1] == (Verdict.RESTART,)
    assert watchdog.look(watch, still, LIMITS.uploading(1 << 20), behind_s=1e9)[1] == (Verdict.RESTART,)


def test_behind_and_caught_up_are_said_once() -> None:
    watch = watchdog.start(0.0)
    said = []
    for at, lag in enumerate([0.0, 61.0, 90.0, 30.0, 0.0, 0.0]):
        seen = Seen(float(at), {"app.db": FileLag(9, 9)}, lag)
        watch, verdicts = watchdog.look(watch, seen, LIMITS, behind_s=60)
        said += [(at, v) for v in verdicts]
    assert said == [(1, Verdict.BEHIND), (4, Verdict.CAUGHT_UP)]


def test_each_restart_in_a_row_waits_twice_as_long_and_catching_up_forgives() -> None:
    watch, at, waits = watchdog.start(0.0), 0.0, []
    for _ in range(5):
        watch = watchdog.restarted(watch, at, LIMITS)
        waits.append(watch.wait_s)
    assert waits == [5, 10, 20, 40, 40]
    stuck = Seen(39.0, None)
    assert watchdog.look(watch, stuck, LIMITS, behind_s=60)[1] == ()
    assert watchdog.look(watch, Seen(40.0, None), LIMITS, behind_s=60)[1] == (Verdict.RESTART,)
    watch, _ = watchdog.look(watch, Seen(41.0, {"app.db": FileLag(9, 9)}), LIMITS, behind_s=60)
    assert watchdog.restarted(watch, 42.0, LIMITS).wait_s == 5


def test_time_in_which_the_machine_was_frozen_does_not_count() -> None:
    watch = watchdog.resumed(watchdog.start(0.0), 600.0)
    assert watchdog.look(watch, Seen(605.0, None), LIMITS, behind_s=60)[1] == ()


def test_a_log_that_stays_unguarded_is_told_once_and_when_it_is_guarded_again() -> None:
    watch, told = watchdog.start(0.0), []
    files = {"app.db": FileLag(5, 5)}
    for at in range(0, 120, 5):
        seen = watchdog.Seen(float(at), files, 0.0, guarded=not 20 <= at < 90)
        watch, verdicts = watchdog.look(watch, seen, LIMITS, behind_s=60)
        told += [(at, v) for v in verdicts]
    assert told == [(50, Verdict.UNGUARDED), (90, Verdict.GUARDED)]


def test_a_checkpoint_that_lets_go_for_a_moment_is_no_alarm() -> None:
    watch, files = watchdog.start(0.0), {"app.db": FileLag(5, 5)}
    for at in range(0, 300, 5):
        seen = watchdog.Seen(float(at), files, 0.0, guarded=at % 15 != 0)
        watch, verdicts = watchdog.look(watch, seen, LIMITS, behind_s=60)
        assert verdicts == ()


def test_what_must_follow_is_asked_for_only_where_a_file_went_on_lately() -> None:
    before = {"a.db": FileLag(5, 5), "b.db": FileLag(5, 5), "c.db": FileLag(None, None)}
    now = {"a.db": FileLag(8, 8), "b.db": FileLag(5, 5), "c.db": FileLag(3, 3)}
    watch, _ = watchdog.look(watchdog.start(0.0), watchdog.Seen(1.0, before, 0.0), LIMITS, behind_s=60)
    assert watchdog.nexts(watch, now, 6.0, LIMITS) == {"a.db": 6}
    assert watchdog.nexts(watchdog.restarted(watch, 5.0, LIMITS), now, 6.0, LIMITS) == {"a.db": 6}
    assert watchdog.nexts(watch, now, 90.0, LIMITS) == {}


def test_a_transaction_that_is_not_ours_is_a_foreign_writer_at_once() -> None:
    seen = watchdog.Seen(1.0, {"app.db": FileLag(8, 8)}, 0.0, skipped=True)
    _, verdicts = watchdog.look(watchdog.start(0.0), seen, LIMITS, behind_s=60)
    assert verdicts == (Verdict.FOREIGN_WRITER,)


@pytest.mark.parametrize("sign", ["skipped", "mixed"])
def test_another_writers_objects_are_a_foreign_writer_and_no_reason_to_restart(sign: str) -> None:
    seen = replace(Seen(500.0, None), **{sign: True})  # type: ignore[arg-type] # a field's name
    _, verdicts = watchdog.look(watchdog.start(0.0), seen, LIMITS, behind_s=60)
    assert verdicts == (Verdict.FOREIGN_WRITER,)


def test_who_must_lose_nothing_is_compared_with_the_bucket_more_often() -> None:
    assert LIMITS.compared_every_s(0.0) < LIMITS.compared_every_s(1.0)
