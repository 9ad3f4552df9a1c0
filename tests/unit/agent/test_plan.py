"""The next step for a tenant, for every mix of what is wanted and what is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.agent.plan import BACKOFF_LIMIT_S, Actual, crashed, failed, fingerprint, plan
from node.api import Assignment
from node.bucket.records import Restore
from node.bucket.spec import TenantSpec

SPEC = TenantSpec(image="img", databases=("app.db",))
UP = Assignment(tenant="acme", generation=3, want="up", spec=SPEC)
RUNS = Actual(claimed=True, held=True, worker=fingerprint(SPEC, 0), settled=3)


@pytest.mark.parametrize(
    ("want", "actual", "step"),
    [
        (UP, Actual(), "up"),
        (UP, Actual(claimed=True), "up"),
        (UP, replace(RUNS, worker=""), "worker"),
        (UP, replace(RUNS, stopped=True), "renew"),
        (UP, replace(RUNS, worker="", stopped=True), "renew"),
        (UP.model_copy(update={"want": "down"}), replace(RUNS, stopped=True), "down"),
        (UP, RUNS, "idle"),
        (UP, replace(RUNS, settled=2), "observe"),
        (UP, replace(RUNS, settled=2, worker="other"), "restart"),
        (UP, replace(RUNS, worker="other"), "idle"),
        (UP, Actual(blocked_generation=3), "idle"),
        (UP, Actual(blocked_generation=2), "up"),
        (UP.model_copy(update={"restore": Restore(id="r1")}), RUNS, "restore"),
        (UP.model_copy(update={"restore": Restore(id="r1")}), replace(RUNS, restore_id="r1"), "idle"),
        (UP.model_copy(update={"want": "down"}), RUNS, "down"),
        (UP.model_copy(update={"want": "down"}), Actual(claimed=True), "down"),
        (UP.model_copy(update={"want": "down"}), Actual(settled=3), "idle"),
        (UP.model_copy(update={"want": "down"}), Actual(settled=2), "down"),
        (UP.model_copy(update={"want": "purged"}), RUNS, "purge"),
        (UP.model_copy(update={"want": "purged"}), Actual(), "tombstone"),
        (UP.model_copy(update={"want": "purged"}), Actual(gone=True, settled=3), "idle"),
    ],
)
def test_the_next_step_follows_from_what_is_wanted_and_what_is(want: Assignment, actual: Actual, step: str) -> None:
    assert plan(want, actual, now=100.0) == step


def test_a_step_waits_for_its_retry() -> None:
    assert plan(UP, Actual(retry_at=101.0), now=100.0) == "wait"
    assert plan(UP, Actual(retry_at=101.0), now=101.0) == "up"


def test_a_tenant_that_needs_nothing_does_not_wait_for_a_retry() -> None:
    assert plan(UP, replace(RUNS, retry_at=200.0), now=100.0) == "idle"


def test_failures_back_off_to_a_bound() -> None:
    actual, waits = Actual(), []
    for _ in range(10):
        actual = failed(actual, now=0.0)
        waits.append(actual.retry_at)
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == BACKOFF_LIMIT_S


def test_a_steady_worker_that_ends_is_started_again_at_once() -> None:
    after = crashed(replace(RUNS, failures=5), ran_s=3600, now=50.0)
    assert after.worker == ""
    assert after.retry_at == 50.0
    assert plan(UP, after, now=50.0) == "worker"


def test_a_worker_that_crashes_in_a_loop_backs_off() -> None:
    actual = RUNS
    waits = []
    for _ in range(9):
        actual = crashed(actual, ran_s=0.2, now=0.0)
        waits.append(actual.retry_at)
    assert waits[:4] == [0, 1, 2, 4]
    assert waits[-1] == BACKOFF_LIMIT_S


def test_labels_and_retention_need_no_restart() -> None:
    relabelled = SPEC.model_copy(update={"labels": {"team": "a"}, "retention": 86400.0})
    assert fingerprint(relabelled, 0) == fingerprint(SPEC, 0)


@pytest.mark.parametrize(
    "change", [{"image": "img2"}, {"env": {"A": "1"}}, {"port": 9000}, {"egress": "on"}, {"rpo": 5.0}]
)
def test_what_the_container_is_made_of_needs_a_restart(change: dict[str, object]) -> None:
    assert fingerprint(SPEC.model_copy(update=change), 0) != fingerprint(SPEC, 0)


def test_a_restart_that_was_asked_for_is_another_fingerprint() -> None:
    assert fingerprint(SPEC, 1) != fingerprint(SPEC, 0)
