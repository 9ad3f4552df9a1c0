"""Killed at random instants, as often as it takes: the same results, and no recorded step runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.workflow.mortal import RUNS, Server, lives, new_seed

NewServer = Callable[..., Server]


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    with ExitStack() as stack:

        def new(folder: Path, names: list[str], *, uploads: bool = False) -> Server:
            server = Server(folder, names, uploads=uploads)
            stack.callback(server.close)
            return server

        yield new


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.long)])
def test_a_server_killed_at_random_ends_with_the_results_of_one_that_was_not(
    tmp_path: Path, new_server: NewServer, count: int
) -> None:
    seed = new_seed()
    print(f"SEED={seed}")
    names = ["row", "fan", "waits"]
    undisturbed = new_server(tmp_path / "undisturbed", names)
    undisturbed.live()
    server = new_server(tmp_path / "killed", names)
    recorded_by: list[set[str]] = [set()]
    before: list[tuple[str, int]] = []
    killed_at_work = 0
    for life_s in lives(seed, count, 0.12)():
        if server.live_for(life_s):
            break
        log = server.log()
        positions = {(run, seq) for run, seq, _, _ in log}
        assert positions.issuperset(before), "the log lost an event"
        before = list(positions)
        recorded_by.append(server.recorded())
        killed_at_work += 0 < len(server.ends()) < RUNS or len(recorded_by[-1]) > 0
    server.live()
    assert server.ends() == undisturbed.ends()
    assert len(server.ends()) == RUNS
    assert killed_at_work > 2
    for effect in server.effects():
        assert effect.key not in recorded_by[min(effect.generation, len(recorded_by)) - 1], "a recorded step ran again"
    assert {e.key for e in server.effects()} == {e.key for e in undisturbed.effects()}


def test_after_the_loss_of_a_machine_nobody_has_acted_on_a_result_that_is_gone(
    tmp_path: Path, new_server: NewServer
) -> None:
    """Each step's result is random and the next step's argument: who acted on a lost one shows another argument."""
    seed = new_seed()
    print(f"SEED={seed}")
    server = new_server(tmp_path / "lost", ["chain"], uploads=True)
    losses = 0
    for life_s in lives(seed, 25, 0.2)():
        if server.live_for(life_s):
            break
        losses += bool(server.log())
        server.lose_the_machine()
    server.live()
    assert losses > 2
    arguments = {
        f"{run}:{body['id']}": body["args"] for run, _, kind, body in server.log() if kind == "activity_scheduled"
    }
    assert len(server.ends()) == RUNS
    for effect in server.effects():
        assert effect.values == arguments[effect.key], "an activity acted on a result that was lost"
