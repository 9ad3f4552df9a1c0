"""When an operation has come to its end, and whether that was a good one."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.cli.errors import CONFLICT, FAILED, MISSING, UNAVAILABLE, UNKNOWN, USAGE, CliError, of_problem
from fleet.cli.follow import finished, judge, wait


def view(state: str, *, want: str = "up", seen: int = 2, generation: int = 2, **more: Any) -> dict[str, Any]:
    """A tenant as the API shows it."""
    base = {"tenant": "acme", "state": state, "want": want, "observed_generation": seen, "generation": generation}
    return {**base, "message": "", "progress": None, "rolled_back": False, **more}


@pytest.mark.parametrize(
    ("state", "want", "done"),
    [
        ("running", "up", True),
        ("starting", "up", False),
        ("frozen", "up", False),
        ("released", "up", False),
        ("failed", "up", True),
        ("lost", "up", True),
        ("damaged", "up", True),
        ("released", "down", True),
        ("hibernated", "down", True),
        ("running", "down", False),
        ("stopping", "down", False),
        ("purged", "purged", True),
        ("released", "purged", False),
    ],
)
def test_an_operation_ends_in_the_state_that_was_wanted_or_in_a_broken_one(state: str, want: str, done: bool) -> None:
    assert finished(view(state, want=want)) is done


@pytest.mark.parametrize("state", ["running", "failed", "lost", "damaged"])
def test_what_was_not_carried_out_yet_goes_on_whatever_came_of_the_one_before(state: str) -> None:
    assert not finished(view(state, seen=1))


@pytest.mark.parametrize("state", ["failed", "lost", "damaged"])
def test_a_broken_end_is_an_error_that_says_why(state: str) -> None:
    with pytest.raises(CliError, match="the disk is on fire") as e:
        judge(view(state, message="the disk is on fire"))
    assert e.value.code == FAILED
    assert e.value.problem["type"] == f"urn:fleet:{state}"
    assert e.value.problem["tenant"] == "acme"


def test_a_change_that_was_rolled_back_is_an_error_though_the_tenant_runs() -> None:
    with pytest.raises(CliError, match="did not get healthy") as e:
        judge(view("running", rolled_back=True, message="generation 2 did not get healthy"))
    assert e.value.code == FAILED
    assert judge(view("running"))["state"] == "running"


class Answers:
    """A client that answers each GET with the next of these, the last one for ever."""

    def __init__(self, *views: dict[str, Any] | CliError) -> None:
        self._views = list(views)

    def call(self, _method: str, _path: str) -> dict[str, Any]:
        """The next answer."""
        found = self._views.pop(0) if len(self._views) > 1 else self._views[0]
        if isinstance(found, CliError):
            raise found
        return found


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _s: None)


def follow(*views: dict[str, Any] | CliError, timeout_s: float = 60) -> dict[str, Any]:
    """Wait over these answers."""
    first, *rest = views
    assert isinstance(first, dict)
    return wait(Answers(*rest), first, timeout_s, quiet=False)  # type: ignore[arg-type] # all that it needs


def test_waiting_says_what_changes_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    restoring = view("restoring", progress=0.5, message="3 of 6")
    end = follow(view("claiming"), view("claiming"), restoring, restoring, view("running"))
    assert end["state"] == "running"
    assert capsys.readouterr().err.splitlines() == ["acme: claiming", "acme: restoring 50%, 3 of 6"]


def test_waiting_without_progress_ends_with_an_unknown_outcome() -> None:
    with pytest.raises(CliError, match="no progress for 0 s, it is starting") as e:
        follow(view("starting"), view("starting"), timeout_s=0)
    assert e.value.code == UNKNOWN
    assert e.value.problem["retryable"] is True


def test_a_tenant_that_is_gone_was_purged() -> None:
    gone = CliError("there is no tenant acme", MISSING)
    assert follow(view("stopping", want="purged"), gone)["state"] == "purged"
    with pytest.raises(CliError) as e:
        follow(view("starting", want="up"), gone)
    assert e.value.code == MISSING


def test_a_controller_that_restarts_meanwhile_is_asked_again() -> None:
    away = CliError("it does not answer", UNAVAILABLE)
    assert follow(view("starting"), away, away, view("running"))["state"] == "running"
    with pytest.raises(CliError) as e:
        follow(view("starting"), away, timeout_s=0)
    assert e.value.code == UNKNOWN


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, USAGE), (401, USAGE), (403, USAGE), (404, MISSING), (409, CONFLICT), (412, CONFLICT), (413, USAGE),
        (422, USAGE), (500, FAILED), (502, UNAVAILABLE), (503, UNAVAILABLE), (504, UNKNOWN),
    ],
)  # fmt: skip
def test_every_answer_has_its_exit_code(status: int, code: int) -> None:
    assert of_problem(status, {"detail": "no"}).code == code


def test_an_error_names_the_field_and_the_tenant_once() -> None:
    said = of_problem(422, {"detail": "is not a size", "field": "spec.limits.memory", "tenant": "acme"})
    assert str(said) == "acme: spec.limits.memory: is not a size"
    assert str(of_problem(404, {"detail": "there is no tenant acme", "tenant": "acme"})) == "there is no tenant acme"
    assert str(of_problem(500, {})) == "the controller answered 500"
