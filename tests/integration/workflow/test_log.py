"""The page about the log: every table and kind is on it, and its queries answer on a real file."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Retry, activity, workflow
from node.workflow.core.queue import Queue
from node.workflow.core.schedule import Schedule
from node.workflow.values.events import INTENTS, Kind
from node.workflow.values.run import STATES
from tests.integration.workflow.served import run, served, until

PAGE = (Path(__file__).parents[3] / "node/workflow/log.md").read_text(encoding="utf-8")
QUESTIONS = dict(re.findall(r"^(\w[^\n]*\?)\n\n((?:    [^\n]*\n)+)", PAGE, re.MULTILINE))


@activity
async def pack(item: str) -> str:
    return item * 1000


@activity(retry=Retry(max_attempts=None, initial_interval_s=3600))
async def mail(item: str) -> None:
    raise ConnectionError("no post today")


@workflow
async def order(ctx: Context, item: str) -> str:
    await ctx.run(pack, item)
    await ctx.run(mail, item)
    return item


@workflow
async def broken(ctx: Context) -> None:
    raise ValueError("never")


@workflow
async def changed(ctx: Context) -> None:
    await ctx.sleep(days=1)


@workflow(name="changed")
async def otherwise(ctx: Context) -> None:
    await ctx.sleep(days=2)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    path = tmp_path_factory.mktemp("log") / "workflow.db"

    async def main() -> None:
        options: dict[str, Any] = {
            "queues": [Queue("q", paused=True)],
            "schedules": [Schedule("s", "order", "@daily", "x")],
        }
        async with served(path, order, broken, changed, **options) as engine:
            await engine.start("order", "ab", "order-7", attributes={"customer": "ann"})
            await engine.start("broken", run_id="b")
            await engine.start("changed", run_id="c")
            await engine.start("order", "x", "waits", queue="q")
            await engine.result("b")
            await until(lambda: "attempt" in str(engine.get("order-7").waits))
        async with served(path, order, broken, otherwise) as engine:
            await engine.signal("c", "go")
            assert engine.get("c").state == "blocked"

    run(main)
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    found = {question: db.execute(sql).fetchall() for question, sql in QUESTIONS.items()}
    db.close()
    return found


def test_there_are_at_least_ten_questions_and_each_is_answered(answers: dict[str, list[Any]]) -> None:
    assert len(answers) >= 10
    assert [question for question, rows in answers.items() if not rows] == []


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is running, waiting for what, since when?", "activity mail, attempt 2"),
        ("What is blocked, and why?", "timer_started"),
        ("What failed since yesterday?", "never"),
        ("Which activities are under way, since when, on which attempt?", "mail"),
        ("How often was a step tried, why did it fail, when is the next attempt?", "no post today"),
        ("What did each step of a run return, and how long did it take?", "abab"),
        ("How deep are the queues, and who waits longest?", "'q', 1"),
        ("Which runs are a customer's?", "order-7"),
    ],
)
def test_an_answer_has_what_was_asked_for(answers: dict[str, list[Any]], question: str, words: str) -> None:
    assert words in str(answers[question])


def test_every_kind_and_state_and_table_is_on_the_page(tmp_path: Path) -> None:
    inputs, intents = PAGE.split("| intent |")
    for kind in Kind:
        assert f"`{kind}`" in (intents if kind in INTENTS else inputs.split("| input |")[1]), kind
    for state in STATES:
        assert f"`{state}`" in PAGE

    async def main() -> None:
        async with served(tmp_path / "workflow.db", broken) as engine:
            tables = engine._executive.store.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
            for (table,) in tables:
                assert f"`{table}" in PAGE, table

    run(main)
