"""Values that pydantic models describe, and large ones, on their way through a run and its file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from node.workflow import Context, activity, errors, workflow
from node.workflow.log.sqlite import connect
from tests.integration.workflow.served import run, served, until


class Line(BaseModel):
    name: str
    count: int = Field(gt=0)


class Order(BaseModel):
    id: int
    due: datetime.date
    lines: list[Line]


class Receipt(BaseModel):
    order: Order
    by: str


@activity
async def pack(order: Order, lines: list[Line]) -> Receipt:
    assert isinstance(order.due, datetime.date)
    assert all(isinstance(line, Line) for line in lines)
    return Receipt(order=order, by="pack")


@workflow
async def shop(ctx: Context, order: Order) -> Receipt:
    receipt = await ctx.run(pack, order, order.lines)
    assert isinstance(receipt, Receipt)
    more = await ctx.wait_signal("more", type=Line)
    assert isinstance(more, Line)
    order.lines.append(more)
    return await ctx.run(pack, order, order.lines)


ORDER: dict[str, Any] = {"id": 7, "due": "2026-01-01", "lines": [{"name": "a", "count": 1}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workflow.db"


def test_models_are_what_the_code_gets_everywhere_before_and_after_a_restart(path: Path) -> None:
    async def main() -> None:
        async with served(path, shop) as engine:
            await engine.start("shop", ORDER, "r")
            await until(lambda: engine.get("r").waits == ("signal more",))
        async with served(path, shop) as engine:
            await engine.signal("r", "more", {"name": "b", "count": 2})
            found = (await engine.result("r")).unwrap()
            assert found["by"] == "pack"
            assert found["order"] == {**ORDER, "lines": [*ORDER["lines"], {"name": "b", "count": 2}]}

    run(main)


def test_an_input_that_the_model_refuses_starts_nothing_and_names_the_field(path: Path) -> None:
    async def main() -> None:
        async with served(path, shop) as engine:
            with pytest.raises(errors.InvalidInput, match="count"):
                await engine.start("shop", {**ORDER, "lines": [{"name": "a", "count": 0}]}, "r")
            with pytest.raises(errors.NoSuchRun):
                engine.get("r")

    run(main)


LARGE = "x" * 50_000


@activity
async def echo(value: str) -> str:
    return value


@workflow
async def passing(ctx: Context, value: str) -> str:
    await ctx.run(echo, value)
    return await ctx.run(echo, await ctx.wait_signal("again", type=str))


def test_a_large_value_is_in_the_file_once_however_often_it_is_passed_on(path: Path) -> None:
    async def main() -> None:
        async with served(path, passing) as engine:
            for name in ("a", "b", "c"):
                await engine.start("passing", LARGE, name)
                await engine.signal(name, "again", LARGE)
                assert (await engine.result(name)).unwrap() == LARGE

    run(main)
    db = connect(path, query_only=True)
    tables = [r[0] for r in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    held = 0
    for table in tables:
        for column in [r[1] for r in db.execute(f"PRAGMA table_info({table})")]:
            held += db.execute(f'SELECT count(*) FROM {table} WHERE length("{column}") >= 50000').get  # noqa: S608 - the names are those of the schema
    db.close()
    assert held == 2, "the value, and the list of arguments with it"
