"""Killed at random instants, as often as it takes: the same results, and no recorded step runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.workflow.mortal import RUNS, Forks, Lives, Server, new_seed

NewServer = Callable[..., Server]


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    forks = Forks()

    def new(folder: Path, names: list[str], *, uploads: bool = False, seed: int = 0) -> Server:
        return Server(folder, names, forks, uploads=uploads, seed=seed)

    yield new
    forks.close()


@pytest.mark.parametrize("kills", [8, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_a_server_killed_at_random_ends_with_the_results_of_one_that_was_not(
    tmp_path: Path, new_server: NewServer, kills: int
) -> None:
    seed = new_seed()
    print(f"SEED={seed}")
    names = ["row", "fan", "waits"]
    undisturbed = new_server(tmp_path / "undisturbed", names)
    undisturbed.live()
    lives = Lives(seed)
    for n in range(kills):  # each server dies a few times before its work is done
        server = new_server(tmp_path / str(n), names)
        recorded_by, died = kill_until_done(server, lives)
        kills -= died
        assert server.ends() == undisturbed.ends()
        assert len(server.ends()) == RUNS
        for effect in server.effects():
            assert effect.key not in recorded_by[effect.generation - 1], "a recorded step ran again"
        assert {e.key for e in server.effects()} == {e.key for e in undisturbed.effects()}
        if kills <= 0:
            break
    assert kills <= 0, "too few lives ended in the middle of work to prove anything"


def kill_until_done(server: Server, lives: Lives) -> tuple[list[set[str]], int]:
    """Lives ended with SIGKILL, and one to the end.

    Returns the steps that were recorded before each of them, and how many ended in the middle of work.
    """
    recorded_by: list[set[str]] = [set()]
    before: set[tuple[str, int]] = set()
    recorded_something, killed_at_work = True, 0
    for _ in range(40):
        if server.live_for(lives.next_s(recorded_something)):
            break
        now = {(run, seq) for run, seq, _, _ in server.log()}
        assert now >= before, "the log lost an event"
        recorded_something = now > before
        killed_at_work += recorded_something
        before = now
        recorded_by.append(server.recorded())
    server.live()
    recorded_by.append(server.recorded())
    return recorded_by, killed_at_work


@pytest.mark.parametrize(
    ("names", "losses"),
    [
        (["chain"], 3),
        (["chancy"], 3),
        *(pytest.param([n], 200, marks=[pytest.mark.long, pytest.mark.timeout(3600)]) for n in ("chain", "chancy")),
    ],
)
def test_after_the_loss_of_a_machine_nobody_has_acted_on_a_result_that_is_gone(
    tmp_path: Path, new_server: NewServer, names: list[str], losses: int
) -> None:
    """Each step's result is random and the next step's argument: who acted on a lost one shows another argument."""
    seed = new_seed()
    print(f"SEED={seed}")
    lives = Lives(seed)
    for number in range(2 * losses):
        server = new_server(tmp_path / str(number), names, uploads=True, seed=seed + number)
        losses -= lose_until_done(server, lives)
        arguments = {
            f"{run}:{body['id']}": body["args"] for run, _, kind, body in server.log() if kind == "activity_scheduled"
        }
        assert len([run for run in server.ends() if run.removeprefix(f"{names[0]}-").isdigit()]) == RUNS
        for effect in server.effects():
            assert effect.values == arguments[effect.key], "an activity acted on a result that was lost"
        if losses <= 0:
            break
    assert losses <= 0, "too few machines were lost in the middle of work to prove anything"


def lose_until_done(server: Server, lives: Lives) -> int:
    """Lives on machines that are lost, and one to the end. Answers how many were lost in the middle of work."""
    recorded_something, losses = True, 0
    for _ in range(30):
        if server.live_for(lives.next_s(recorded_something)):
            break
        recorded_something = bool(server.log())
        losses += recorded_something
        server.lose_the_machine()
    server.live()
    return losses
