"""Waiting for a run's result."""

from __future__ import annotations

import pytest

from fleet.cli.errors import FAILED, UNAVAILABLE, UNKNOWN, CliError, of_problem
from fleet.cli.runs import LONGEST_PAUSE_S, MISSES, _result, with_option


class Server:
    """Answers in turn; keeps which runs were asked for."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.asked = []

    def call(self, method, path, **_):
        self.asked.append(path.split("/")[3])
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(run_id, state, **more):
    return {"id": run_id, "state": state, **more}


def result(server, run_id, timeout_s=None):
    """What the run comes to, and the pauses that were made on the way."""
    pauses = []
    try:
        return _result(server, run_id, "acme", timeout_s, pause=pauses.append), pauses
    except CliError as e:
        return e, pauses


def test_a_run_is_waited_for_until_it_has_ended():
    server = Server(run("r", "queued"), run("r", "running"), run("r", "completed", result=7))
    assert result(server, "r")[0]["result"] == 7
    assert server.asked == ["r", "r", "r"]


def test_one_that_went_on_as_new_is_followed_to_its_result_at_once():
    server = Server(
        run("r~1", "continued", continued_to="r~2"),
        run("r~2", "continued", continued_to="r"),
        run("r", "completed", result=7),
    )
    assert result(server, "r~1") == (run("r", "completed", result=7), [])
    assert server.asked == ["r~1", "r~2", "r"]


@pytest.mark.parametrize(
    "away", [CliError("away", UNAVAILABLE), of_problem(429, {"detail": "too much to do", "retryable": True})], ids=str
)
def test_a_server_that_is_away_is_asked_again_after_growing_pauses_but_not_for_ever(away):
    found, pauses = result(Server(away, away, run("r", "failed")), "r")
    assert (found["state"], pauses) == ("failed", [0.25, 0.5])
    error, pauses = result(Server(*[away] * (MISSES + 1)), "r")
    assert "run r goes on, but its result is not known" in str(error)
    assert error.code == UNKNOWN
    assert len(pauses) == MISSES
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


def test_pauses_are_short_again_once_there_was_an_answer():
    away = CliError("away", UNAVAILABLE)
    server = Server(away, away, run("r", "continued", continued_to="s"), away, run("s", "completed"))
    assert result(server, "r")[1] == [0.25, 0.5, 0.25]


def test_a_server_that_answers_at_once_without_a_result_is_not_asked_without_a_pause():
    server = Server(*[run("r", "running")] * 8, run("r", "completed"))
    assert result(server, "r")[1] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_what_another_try_does_not_mend_is_not_tried_again():
    error, pauses = result(Server(CliError("no such run", FAILED)), "r")
    assert (error.code, pauses) == (UNKNOWN, [])


def test_a_run_may_take_as_long_as_it_likes_unless_somebody_says_how_long():
    waiting = run("r", "running", updated_at="t")
    error, _ = result(Server(*[waiting] * 3), "r", 0)
    assert "run r has not gone on for 0 s, it is running" in str(error)
    assert error.code == UNKNOWN
    moving = [run("r", "running", updated_at=str(n)) for n in range(5)]
    assert result(Server(*moving, run("r", "completed")), "r", 0)[0]["state"] == "completed"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("run", "acme", "w"), "fleet run acme w --id a"),
        (("run", "acme", "w", "--input", '{"a": "b c"}'), """fleet run acme w --input '{"a": "b c"}' --id a"""),
        (("signal", "acme", "r", "n", "--", "-5"), "fleet signal acme r n --id a -- -5"),
    ],
)
def test_a_command_is_repeated_as_it_was_typed_with_an_option_more(words, command):
    assert with_option(words, "--id", "a") == command
