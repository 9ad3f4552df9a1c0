"""How a drain is followed: what is said, when it ends, and with which code."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.cli import machines
from fleet.cli.errors import FAILED, UNAVAILABLE, UNKNOWN, CliError
from fleet.cli.machines import Follow


def left(tenant: str, stage: str = "waiting", message: str = "", to: str | None = "n2") -> dict[str, Any]:
    """A tenant that has not gone."""
    return {"tenant": tenant, "stage": stage, "to": to, "reason": "r", "message": message}


def view(*leaving: dict[str, Any], cordon: str = "draining") -> dict[str, Any]:
    """A node as the API shows it."""
    return {"node": "n1", "state": "draining", "cordon": cordon, "tenants": len(leaving), "leaving": list(leaving)}


class Answers:
    """A client that answers these views one after the other, then the last one for ever; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)

    def call(self, method: str, path: str) -> Any:
        """The next answer."""
        assert (method, path) == ("GET", "/v1/nodes/n1")
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "POLL_S", 0.0)
    monkeypatch.setattr(machines, "STANDSTILL_S", 0.0)


def follow(*answers: Any, timeout_s: float = 60.0) -> dict[str, Any]:
    """Follow a drain whose first answer is the first of these."""
    return Follow(Answers(*answers[1:]), answers[0], timeout_s, quiet=False).run()  # type: ignore[arg-type]  # a client for one path


def test_it_ends_with_the_last_one_and_has_named_each(capsys: pytest.CaptureFixture[str]) -> None:
    moving = left("a", "moving", "restoring 40%")
    end = follow(view(left("a"), left("b")), view(moving, left("b")), view(left("b", "moving")), view())
    assert end["leaving"] == []
    assert capsys.readouterr().err.splitlines() == [
        "a: moving to n2, restoring 40%", "a: moved", "b: moving to n2", "b: moved",
    ]  # fmt: skip


def test_it_stops_when_nobody_is_under_way_and_says_who_can_not_go_and_why() -> None:
    stuck = left("a", "stuck", "no room for 1g", None)
    with pytest.raises(CliError, match=r"1 can't go, 1 wait behind them: a: no room for 1g") as e:
        follow(view(stuck, left("b")), view(stuck, left("b")))
    assert e.value.code == FAILED
    assert e.value.problem["tenants"] == ["a", "b"]


def test_one_that_can_not_go_does_not_end_it_while_others_go() -> None:
    stuck = left("a", "stuck", "pinned", None)
    with pytest.raises(CliError, match="1 can't go: a: pinned"):
        follow(view(stuck, left("b", "moving")), view(stuck, left("b", "moving", "starting")), view(stuck))


def test_without_news_for_the_timeout_the_outcome_is_unknown() -> None:
    with pytest.raises(CliError, match="no progress") as e:
        follow(view(left("a", "moving")), view(left("a", "moving")), timeout_s=0.0)
    assert (e.value.code, e.value.problem["retryable"]) == (UNKNOWN, True)


def test_a_controller_that_is_away_for_a_moment_is_waited_for() -> None:
    away = CliError("it does not answer", UNAVAILABLE)
    assert follow(view(left("a", "moving")), away, away, view())["leaving"] == []


def test_a_drain_that_somebody_ended_is_a_failure() -> None:
    with pytest.raises(CliError, match="ended by somebody else"):
        follow(view(left("a", "moving")), view(left("a"), cordon="open"))
