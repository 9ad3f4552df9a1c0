"""What workflow code must not do is caught with its line, whichever way it comes to it."""

from __future__ import annotations

import contextlib
import datetime
import gc
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from time import time as taken_early
from typing import Any

import pytest

from node.workflow import Context, activity, workflow
from node.workflow.core.machine import Machine
from node.workflow.core.sandbox import NondeterministicWarning, Sandbox
from node.workflow.errors import Nondeterministic
from tests.unit.workflow.book import Book

BAD: dict[str, Callable[[], Any]] = {
    "time.time": time.time,
    "time.time taken early": lambda: taken_early(),
    "time.monotonic": lambda: time.monotonic(),
    "time.sleep": lambda: time.sleep(0),
    "datetime.now": lambda: datetime.datetime.now(datetime.UTC),
    "date.today": lambda: datetime.date.today(),  # noqa: DTZ011 - what authors write
    "random.random": lambda: random.random(),
    "random.randint": lambda: random.randint(1, 6),
    "random.shuffle": lambda: random.shuffle([1, 2, 3]),
    "uuid4": lambda: uuid.uuid4(),
    "secrets": lambda: secrets.token_hex(),
    "urandom": lambda: os.urandom(4),
    "open": lambda: open("/dev/null").close(),  # noqa: PTH123 - what authors write
    "Path.read_text": lambda: Path("/dev/null").read_text(),
    "listdir": lambda: os.listdir("/"),  # noqa: PTH208 - what authors write
    "getaddrinfo": lambda: socket.getaddrinfo("localhost", 1),
    "subprocess": lambda: subprocess.run(["/bin/true"], check=True),
}
GOOD: dict[str, Callable[[], Any]] = {
    "seeded random": lambda: random.Random(7).random(),
    "import": lambda: __import__("colorsys"),
    "a log message": lambda: logging.getLogger("tests.sandbox").warning("fine"),
    "a duration": lambda: datetime.timedelta(1) + datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "strptime": lambda: datetime.datetime.fromisoformat("2024-01-01"),
}


@activity
async def step() -> None: ...


def body(does: Callable[[], Any]) -> Any:
    @workflow(name="w", strict=True)
    async def w(ctx: Context) -> None:
        await ctx.run(step)
        does()
        ctx.now(), ctx.random(), ctx.uuid()
        await ctx.sleep(1)

    return w


@pytest.mark.parametrize("does", BAD.values(), ids=BAD)
def test_what_a_replay_would_not_see_the_same_way_is_refused_with_the_line(does: Callable[[], Any]) -> None:
    book = Book(body(does))
    with pytest.raises(Nondeterministic, match=r"test_sandbox\.py:\d+"):
        book.completed(1)
    book.machine.close()


@pytest.mark.parametrize("does", GOOD.values(), ids=GOOD)
def test_what_is_the_same_on_every_replay_is_let_through(does: Callable[[], Any]) -> None:
    sys.modules.pop("colorsys", None)
    book = Book(body(does))
    book.completed(1)
    assert book.kinds[-1] == "timer_started"
    book.machine.close()


def test_a_collection_that_would_begin_in_a_step_is_not_the_authors_doing() -> None:
    """Others' callbacks and finalizers run wherever a collection begins."""

    def callback(_phase: str, _info: dict[str, int]) -> None:
        time.time()

    thresholds = gc.get_threshold()
    book = Book(body(lambda: len([[n] for n in range(10_000)])))
    gc.callbacks.append(callback)
    try:
        gc.set_threshold(1)
        book.completed(1)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)
    assert gc.isenabled()
    assert book.kinds[-1] == "timer_started"
    book.machine.close()


def test_code_that_catches_the_error_is_refused_all_the_same() -> None:
    def hides() -> None:
        with contextlib.suppress(Exception):
            time.time()

    book = Book(body(hides))
    with pytest.raises(Nondeterministic):
        book.completed(1)
    book.machine.close()


def test_in_development_it_is_a_warning_once_for_each_line() -> None:
    sandbox = Sandbox(strict=False)

    def author() -> None:
        for _ in range(3):
            time.time()
        random.random()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sandbox.run(author)
        sandbox.run(author)
    assert [w.category for w in caught] == [NondeterministicWarning] * 2
    assert {Path(w.filename).name for w in caught} == {"test_sandbox.py"}
    assert "ctx.now()" in str(caught[0].message)


def test_outside_of_workflow_code_nothing_is_watched() -> None:
    Sandbox(strict=True).run(lambda: None)
    before = sys.getprofile()
    time.time()
    Path("/dev/null").read_text()
    assert sys.getprofile() is before


def test_a_workflow_without_checks_is_stepped_as_it_is() -> None:
    @workflow
    async def w(ctx: Context) -> None: ...

    assert Machine(w, "r")._sandbox is None
