"""A generated mix of workflows is killed a thousand times, at any write of the log: its results are those of the mix
that was never killed, no recorded step runs again, and what its activities did is what was asked of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.workflow.mortal import LONGEST_LIFE_S, Effect, Forks, Server, new_seed
from tests.integration.workflow.writes import FAULTS, Fault

NewServer = Callable[[str, int], Server]
Asked = tuple[object, ...]  # the tree, and a step's arguments: a callee that honours the keys does each exactly once
RUNS = 6
FIRST_WRITES, LATER_WRITES = 200, 100


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    forks = Forks()

    seed = new_seed()
    print(f"SEED={seed}")

    def new(name: str, runs: int) -> Server:
        return Server(tmp_path / name, ["tree"], forks, runs=runs, seed=seed)

    yield new
    forks.close()


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(1000, marks=pytest.mark.timeout(900)),
        pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_a_mix_of_workflows_survives_a_thousand_kills(new_server: NewServer, kills: int) -> None:
    undisturbed = new_server("undisturbed", RUNS)
    draw = random.Random(undisturbed.seed)
    undisturbed.live()
    died, number = 0, 0
    while died < kills:
        number += 1
        server = new_server(str(number), RUNS)
        lives = [set[str]()]
        while not server.live_for(LONGEST_LIFE_S, draw.choice(["kill", "torn"]), draw.randint(1, furthest(lives))):
            died += 1
            lives.append(server.recorded())
        check(server, undisturbed, lives)
    assert number > 1, "the kills never let a mix end"


def furthest(lives: list[set[str]]) -> int:
    """The last write that may be a life's end: the first makes the schema, the later ones are to be short."""
    return FIRST_WRITES if len(lives) == 1 else LATER_WRITES


def check(server: Server, undisturbed: Server, lives: list[set[str]]) -> None:
    """What holds of a mix whatever became of it; `lives` are the steps that were recorded before each of its lives."""
    assert server.ends() == undisturbed.ends()
    done = server.effects()
    assert {asked(effect) for effect in done} == {asked(effect) for effect in undisturbed.effects()}
    arguments: dict[str, Asked] = {}
    keys: dict[Asked, str] = {}
    for effect in done:
        assert arguments.setdefault(effect.key, asked(effect)) == asked(effect), "a step ran with other arguments"
        assert keys.setdefault(asked(effect), effect.key) == effect.key, "a step ran under two idempotency keys"
        assert effect.key not in lives[effect.generation - 1], "a recorded step ran again"


def asked(effect: Effect) -> Asked:
    """What a step does, which is one step of its tree: which number it has is up to which of its branches was first."""
    return effect.key.partition(":")[0].partition(".")[0], *effect.values


# What an error costs is the engine's patience before it writes again: a second each.
@pytest.mark.parametrize(
    ("fault", "every"),
    [
        ("kill", 1),
        ("torn", 7),
        ("error", 31),
        ("full", 31),
        *(pytest.param(fault, 1, marks=[pytest.mark.long, pytest.mark.timeout(3600)]) for fault in FAULTS[1:]),
    ],
)
def test_a_fault_at_every_single_write_changes_nothing_in_the_end(
    new_server: NewServer, fault: Fault, every: int
) -> None:
    undisturbed = new_server("undisturbed", 1)
    undisturbed.live()
    write, whole = 1 - every + undisturbed.seed % every, False
    while not whole:
        write += every
        server = new_server(str(write), 1)
        whole = lived_through(server, fault, write)
        server.live()
        assert server.ends() == undisturbed.ends(), f"{fault} at write {write}"
    assert write > 20, "the work is done in too few writes to prove anything"


def lived_through(server: Server, fault: Fault, write: int) -> bool:
    """Let it meet the fault; answers whether it ended its work before that write."""
    done = server.live_for(LONGEST_LIFE_S, fault, write)
    return done if fault in ("kill", "torn") else done and server.writes() < write


def test_a_wal_torn_at_any_page_is_a_shorter_log_and_nothing_worse(new_server: NewServer) -> None:
    """A machine may lose what was not yet on its disk: every prefix of the WAL, and half of a page behind it."""
    undisturbed = new_server("undisturbed", 1)
    undisturbed.live()
    victim = new_server("victim", 1)
    assert not victim.live_for(LONGEST_LIFE_S, "kill", 60)
    database, wal = victim.path.read_bytes(), victim.path.with_name(victim.path.name + "-wal").read_bytes()
    frames = (len(wal) - 32) // (24 + 4096)
    assert frames > 10
    for frame in range(frames + 1):
        for torn in (0, 2000):
            server = new_server(f"{frame}-{torn}", 1)
            server.path.write_bytes(database)
            server.path.with_name(server.path.name + "-wal").write_bytes(wal[: 32 + frame * (24 + 4096) + torn])
            server.live()
            assert server.ends() == undisturbed.ends()
