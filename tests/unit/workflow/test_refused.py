"""What workflow code is refused is told of the run that did it, and of no other."""

from __future__ import annotations

import contextlib
import time

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.core.sandbox import Sandbox
from node.workflow.errors import Nondeterministic
from tests.unit.workflow.book import Book


@activity
def act(x: str) -> str:
    return x


@workflow
async def innocent(ctx: Context) -> int:
    return 7


def test_a_run_that_is_refused_twice_leaves_nothing_to_the_next_one() -> None:
    @workflow(strict=True)
    async def offends(ctx: Context) -> None:
        with contextlib.suppress(Exception):
            act("directly")
        time.time()

    with pytest.raises(Nondeterministic, match=r"time\.time"):
        Book(offends)
    assert Book(innocent).result == 7


def test_a_strict_run_whose_step_breaks_leaves_nothing_to_the_next_one() -> None:
    sandbox = Sandbox(strict=True)

    def breaks() -> None:
        with contextlib.suppress(Exception):
            time.time()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sandbox.run(breaks)
    sandbox.run(lambda: None)
