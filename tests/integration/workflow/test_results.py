"""What generated workflows come to is what a plain program that walks the same trees comes to."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.integration.workflow.generated import Grower, Tree, mixed_up, tree
from tests.integration.workflow.mortal import new_seed
from tests.integration.workflow.served import served


def plain(node: Tree, before: int) -> int:
    """The number that a node makes of the one before it, with nothing durable about it."""
    match node:
        case ["run", _, name] | ["bounded", name]:
            return mixed_up(name, before)
        case ["fail", name]:
            return mixed_up(f"after {name}", before)
        case ["sequence", *nodes]:
            for one in nodes:
                before = plain(one, before)
            return before
        case ["gather", _, *nodes]:
            return sum(plain(one, before + i) for i, one in enumerate(nodes))
        case ["race", winner, _]:
            return 1 + plain(winner, before)
        case ["child", part]:
            return plain(part, before)
        case ["failing_child" | "signal", _] | ["sleep", _]:
            return before + 1
        case ["state", _]:
            return before
    raise AssertionError(node)


@pytest.mark.parametrize("count", [40, pytest.param(4_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_every_run_comes_to_what_its_tree_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Some lives keep every run in memory and some none; each begins where the last one was cut off."""
    seed = new_seed()
    print(f"SEED={seed}")
    monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
    monkeypatch.setenv("GENERATION", "1")
    trees = {f"r{n}": (Grower(random.Random(f"{seed} {n}")).tree(), n) for n in range(count)}

    async def main() -> None:
        for keep_idle in (0, 256, 1):
            async with served(tmp_path / "workflow.db", tree, keep_idle=keep_idle, synchronous="normal") as engine:
                given = [({"tree": grown, "before": n}, name) for name, (grown, n) in trees.items()]
                await asyncio.gather(*(engine.start("tree", value, name) for value, name in given))
                await asyncio.sleep(0.02)
        async with served(tmp_path / "workflow.db", tree, keep_idle=4, synchronous="normal") as engine:
            for name, (grown, n) in trees.items():
                assert (await engine.result(name)).unwrap() == plain(grown, n), name

    asyncio.run(main())
