"""Two versions of the code take turns on one log and are killed: a run that is open finishes on what it began with or
waits, blocked, with the reason. No result mixes the two."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest

from node.workflow import Context, Engine, Workflow, activity, workflow
from tests.integration.workflow.mortal import new_seed
from tests.integration.workflow.served import run, until

Edit: TypeAlias = Literal["insert", "drop", "swap", "rename"]
EDITS: tuple[Edit, ...] = ("insert", "drop", "swap", "rename")
RUNS = 6
begun: set[tuple[str, str]] = set()


@activity
async def note(run_id: str, what: str) -> str:
    begun.add((run_id, what))
    return what


async def carry_out(ctx: Context, words: list[str]) -> list[str]:
    """Steps of each kind, told apart by their word."""
    said: list[str] = []
    for word in words:
        match word[0]:
            case "a" | "n":
                said.append(await ctx.run(note, ctx.run_id, word))
            case "s":
                await ctx.sleep(0.002)
                said.append(word)
            case "w":
                said.append(f"{word}{await ctx.wait_signal(word)}")
    return said


def edited(words: list[str], edit: Edit, draw: random.Random) -> tuple[int, list[str]]:
    """The words after an edit, and where it begins."""
    at = draw.randrange(len(words))
    match edit:
        case "insert":
            return at, [*words[:at], "new", *words[at:]]
        case "drop":
            return at, words[:at] + words[at + 1 :]
        case "swap":
            return at, [*words[:at], *words[at:][::-1]]
        case "rename":
            return at, [*words[:at], f"n{at}", *words[at + 1 :]]


def versions(seed: str, *, patched: bool) -> tuple[list[Workflow], list[list[str]]]:
    """Two bodies of one workflow, and what each comes to alone."""
    draw = random.Random(seed)
    first = [f"{draw.choice('aaswa')}{n}" for n in range(draw.randint(3, 8))]
    at, second = edited(first, draw.choice(EDITS), draw)

    @workflow(name="shop")
    async def before(ctx: Context) -> list[str]:
        return await carry_out(ctx, first)

    @workflow(name="shop")
    async def after(ctx: Context) -> list[str]:
        if not patched:
            return await carry_out(ctx, second)
        said = await carry_out(ctx, first[:at])
        return said + await carry_out(ctx, second[at:] if ctx.patched("edit") else first[at:])

    return [before, after], [[answered(w) for w in words] for words in (first, second)]


def answered(word: str) -> str:
    return f"{word}!" if word[0] == "w" else word


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("pairs", [6, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_open_runs_finish_on_one_version_or_wait_with_the_reason(tmp_path: Path, pairs: int, patched: bool) -> None:
    seed = new_seed()
    print(f"SEED={seed}")
    for number in range(pairs):
        begun.clear()
        pair, alone = versions(f"{seed} {number}", patched=patched)
        draw = random.Random(f"{seed} {number} turns")
        run(lambda n=number, p=pair, a=alone, d=draw: turns(tmp_path / f"{n}.db", p, a, d, patched))  # type: ignore[misc]  # a lambda with defaults


async def turns(path: Path, pair: list[Workflow], alone: list[list[str]], draw: random.Random, patched: bool) -> None:
    """The versions serve the file by turns, each cut off in the middle; then each to where it gets."""
    for _ in range(6):
        await serve(path, draw.choice(pair), alone, draw.uniform(0, 0.03))
    order = pair if draw.random() < 0.5 else pair[::-1]
    states = [await serve(path, definition, alone, None) for definition in order]
    if patched:  # the newer code goes on with every run, unless the older one is past the patch already
        states.append(await serve(path, pair[1], alone, None))
        assert set(states[-1].values()) == {"completed"}, "code that was patched did not go on with a run"
    assert {"completed", "blocked"} >= set(states[-1].values())


async def serve(path: Path, definition: Workflow, alone: list[list[str]], seconds: float | None) -> dict[str, str]:
    """One life of one version, cut off after so long or once nothing goes on. Answers the states of the runs."""
    engine = Engine(path, [definition], checkpoint=True, synchronous="normal")
    await engine.open()
    try:
        for n in range(RUNS):
            await engine.start("shop", run_id=f"r{n}")
            if engine.get(f"r{n}").closed:
                continue
            for word in {word[:-1] for words in alone for word in words if word[0] == "w"}:
                await engine.signal(f"r{n}", word, "!", signal_id=word)
        if seconds is None:
            await until(lambda: all(engine.get(f"r{n}").state in ("completed", "blocked") for n in range(RUNS)))
        else:
            await asyncio.sleep(seconds)
        for n in range(RUNS):
            check(engine, f"r{n}", alone)
        return {f"r{n}": engine.get(f"r{n}").state for n in range(RUNS)}
    finally:
        await engine.close(grace_s=0)


def check(engine: Engine, run_id: str, alone: list[list[str]]) -> None:
    """It ended as one of the versions alone would have, or says what does not fit."""
    found = engine.get(run_id)
    if found.state == "completed":
        assert found.result in alone, "a result that neither version gives"
        done = {word for run, word in begun if run == run_id}
        assert done >= {word for word in found.result if word[0] in "an"}, "a step was left out"
    elif found.state == "blocked":
        error: Any = found.error
        assert error["type"] == "Mismatch"
        assert error["recorded"]
        assert error["code"]
    else:
        assert found.state == "running"
