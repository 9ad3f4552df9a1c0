"""Waiting for a run's result."""

from __future__ import annotations

import pytest

from fleet.cli.errors import UNAVAILABLE, UNKNOWN, CliError
from fleet.cli.runs import _result


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


def test_a_run_is_waited_for_until_it_has_ended():
    server = Server(run("r", "queued"), run("r", "running"), run("r", "completed", result=7))
    assert _result(server, "r", "acme")["result"] == 7
    assert server.asked == ["r", "r", "r"]


def test_one_that_went_on_as_new_is_followed_to_its_result():
    server = Server(
        run("r~1", "continued", continued_to="r~2"),
        run("r~2", "continued", continued_to="r"),
        run("r", "running"),
        run("r", "completed", result=7),
    )
    assert _result(server, "r~1", "acme") == run("r", "completed", result=7)
    assert server.asked == ["r~1", "r~2", "r", "r"]


def test_a_server_that_restarts_is_asked_again_but_not_for_ever():
    away = CliError("away", UNAVAILABLE)
    assert _result(Server(away, away, run("r", "failed")), "r", "acme")["state"] == "failed"
    with pytest.raises(CliError, match="run r goes on, but its result is not known") as e:
        _result(Server(*[away] * 11), "r", "acme")
    assert e.value.code == UNKNOWN


def test_a_run_may_take_as_long_as_it_likes_unless_somebody_says_how_long():
    waiting = run("r", "running", updated_at="t")
    with pytest.raises(CliError, match="run r has not gone on for 0 s, it is running") as e:
        _result(Server(*[waiting] * 3), "r", "acme", 0)
    assert e.value.code == UNKNOWN
    moving = [run("r", "running", updated_at=str(n)) for n in range(5)]
    assert _result(Server(*moving, run("r", "completed")), "r", "acme", 0)["state"] == "completed"
