"""Every error says what happened, to which run, and what to do."""

from __future__ import annotations

import pytest

from node.workflow import errors
from node.workflow.errors import WorkflowError

ALL = {
    errors.InvalidDefinition("activity x: …"): (500, 2, False, "activity x"),
    errors.InvalidInput("input.a", "missing"): (422, 2, False, "input.a: missing"),
    errors.NotStorable("the result has no JSON form"): (500, 2, False, "no JSON form"),
    errors.UnknownWorkflow("a", ("b", "c")): (404, 2, False, "b, c"),
    errors.NoSuchRun("r1"): (404, 2, False, "'r1'"),
    errors.InputConflict("r1", "another input"): (409, 2, False, "choose another id"),
    errors.NoSuchSchedule("s1"): (404, 2, False, "'s1'"),
    errors.RunExists("r1", "completed"): (409, 2, False, "choose another id"),
    errors.RunClosed("r1", "completed"): (409, 1, False, "completed"),
    errors.RunFailed("r1", {"type": "E", "message": "m"}): (500, 1, False, "E: m"),
    errors.RunCancelled("r1"): (500, 1, False, "cancelled"),
    errors.RunTerminated("r1"): (500, 1, False, "terminated"),
    errors.RunContinued("r1", "r2"): (500, 1, False, "'r2'"),
    errors.RunBlocked("r1", {"message": "m"}): (409, 1, False, "blocked: m"),
    errors.RunNotFinished("r1"): (409, 1, True, "wait"),
    errors.Mismatch("r1", 3, "A", "B"): (500, 1, False, "start code that fits"),
    errors.LogDamaged("r1", 3, "x"): (500, 1, False, "restore the file"),
    errors.Undecodable("r1", 3, "x"): (500, 1, False, "the codec and the key"),
    errors.ForeignAwait("r1", "X", "f.py:3"): (500, 1, False, "f.py:3"),
    errors.ActivityFailed("charge", "E", "m", 3): (500, 1, False, "after 3 attempt"),
    errors.ChildFailed("w", "c-1", "failed", "E", "m"): (500, 1, False, "'c-1'"),
    errors.ContinuesForEver("r1", 3): (500, 1, False, "start code that waits"),
    errors.NoSuchQuery("r1", "q", ()): (404, 2, False, "none"),
    errors.QueryFailed("r1", "q", "p"): (500, 1, False, "as it was"),
    errors.QueryWrites("r1"): (500, 1, False, "only reads"),
    errors.Nondeterministic("time.time", "reads the clock", "f.py:3"): (500, 1, False, "f.py:3"),
    errors.ScopeTimeout(3): (500, 1, False, "within the 3 s"),
    errors.WaitTimeout("s"): (500, 1, False, "'s'"),
    errors.Unconfirmed("r1", 30): (503, 1, True, "repeat the call with the same id"),
    errors.NotRecorded("r1", "full"): (507, 1, True, "nothing was done"),
    errors.NotOpen(): (503, 1, True, "not open"),
    errors.SchemaTooNew("/f", 9, 1): (500, 1, False, "newer version"),
    errors.ForeignFile("/f"): (500, 1, False, "nothing was changed"),
    errors.AlreadyServed("/f"): (500, 1, False, "stop that one"),
}


@pytest.mark.parametrize("error", ALL, ids=lambda e: type(e).__name__)
def test_an_error_has_its_status_its_exit_code_and_says_what_to_do(error: WorkflowError) -> None:
    status, exit_code, retryable, words = ALL[error]
    assert (error.http_status, error.exit_code, error.retryable) == (status, exit_code, retryable)
    assert words in str(error)


def test_no_error_is_left_out_here() -> None:
    declared = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, WorkflowError)}
    assert declared - {type(e) for e in ALL} == {WorkflowError}


def test_what_unwinds_code_is_no_exception_that_authors_catch() -> None:
    assert not issubclass(errors.Cancelled, Exception)
    assert not issubclass(errors.Evicted, Exception)
