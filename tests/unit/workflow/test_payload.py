"""Values to JSON text and back."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.workflow.errors import InvalidDefinition, InvalidInput, NotStorable
from node.workflow.values.payload import decoder, digest, encode, short_digest

Customer = NewType("Customer", str)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str
    price: float


@dataclass
class Order:
    id: int
    items: list[Item]
    note: str | None = None
    tags: dict[str, int] = field(default_factory=dict)
    parent: Order | None = None


class Point(NamedTuple):
    x: int
    y: int


def read(hint: Any, value: Any) -> Any:
    return decoder(hint, "test")(value, "input")


def test_text_is_canonical() -> None:
    assert encode({"b": 1, "a": [1.5, None, True, "ü"]}) == '{"a":[1.5,null,true,"ü"],"b":1}'
    assert encode({"a": 1, "b": 2}) == encode({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3),
        (float, 2.5),
        (bool, True),
        (str, "x"),
        (None, None),
        (list[int], [1, 2]),
        (Sequence[str], ["a"]),
        (tuple[int, ...], (1, 2, 3)),
        (tuple[int, str], (1, "a")),
        (dict[str, float], {"a": 1.0}),
        (dict[int, str], {7: "x"}),
        (Mapping[str, Any], {"a": {"b": [1]}}),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (Color, Color.BLUE),
        (Literal["a", "b"], "b"),
        (bytes, b"\x00\xff"),
        (time, time(3, 4, 5)),
        (timedelta, timedelta(days=1, milliseconds=5)),
        (Customer, Customer("ann")),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (date, date(2026, 1, 2)),
        (uuid.UUID, uuid.UUID(int=5)),
        (Decimal, Decimal("1.10")),
        (Path, Path("/a/b")),
        (int | str | None, "x"),
        (Item, Item("pen", 1.5)),
        (Order, Order(1, [Item("pen", 1.5)], parent=Order(2, []))),
        (list[Order], [Order(1, [], tags={"a": 1})]),
        (Any, {"anything": [1, "b", None]}),
    ],
)
def test_a_value_comes_back_as_it_was(hint: Any, value: Any) -> None:
    import json

    assert read(hint, json.loads(encode(value))) == value


@pytest.mark.parametrize(
    ("hint", "value", "field_name", "problem"),
    [
        (int, "3", "input", "whole number"),
        (int, True, "input", "whole number"),
        (int, 1.0, "input", "whole number"),
        (str, None, "input", "got null"),
        (float, "x", "input", "number"),
        (list[int], {}, "input", "list"),
        (list[int], [1, "x"], "input[1]", "whole number"),
        (dict[str, int], {"a": "x"}, "input.a", "whole number"),
        (dict[int, str], {"x": "y"}, "input.x", "whole number"),
        pytest.param(dict[int, str], {"1" * 5_000: ""}, "input." + "1" * 80, "whole number", id="long key"),
        pytest.param(float, 10**400, "input", "larger", id="long float"),
        pytest.param(list[float], [1, -(10**400)], "input[1]", "larger", id="long floats"),
        (timedelta, 1e20, "input", "seconds"),
        pytest.param(timedelta, 10**400, "input", "larger", id="long timedelta"),
        (timedelta, float("nan"), "input", "seconds"),
        (set[Any], [[1]], "input", "set"),
        (frozenset[int], [1, "x"], "input[1]", "whole number"),
        (tuple[int, str], [1], "input", "list of 2"),
        (Color, "green", "input", "Color"),
        (Literal["a"], "b", "input", "'a'"),
        (date, "tomorrow", "input", "date"),
        (Decimal, "one", "input", "decimal"),
        (Order, [], "input", "an object (Order)"),
        (Order, {"id": 1}, "input.items", "missing"),
        (Order, {"id": 1, "items": [], "itms": 1}, "input.itms", "unknown field"),
        (Order, {"id": 1, "items": [{"name": "a", "price": "x"}]}, "input.items[0].price", "number"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(
    hint: Any, value: Any, field_name: str, problem: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(hint, value)
    assert caught.value.field == field_name
    assert problem in caught.value.problem


@pytest.mark.parametrize("value", [object(), float("nan"), float("inf"), 1j, "\ud800", {1: 1, "a": 2}, {object()}])
def test_what_has_no_json_form_is_refused(value: Any) -> None:
    with pytest.raises(NotStorable, match="the thing has no JSON form"):
        encode(value, "the thing")


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotStorable):
        encode(loop)


@pytest.mark.parametrize("hint", [object.__class__, Point, complex, type(lambda: 0)])
def test_a_type_that_cannot_be_read_back_is_refused_early(hint: Any) -> None:
    with pytest.raises(InvalidDefinition, match="dataclass"):
        decoder(hint, "activity charge")


def test_models_with_pydantics_methods_are_understood() -> None:
    class Model:
        def __init__(self, a: int) -> None:
            self.a = a

        def model_dump(self, mode: str) -> dict[str, int]:
            return {"a": self.a}

        @classmethod
        def model_validate(cls, value: dict[str, int]) -> Model:
            return cls(value["a"])

    assert encode(Model(3)) == '{"a":3}'
    assert read(Model, {"a": 3}).a == 3


@dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("odd")


def test_a_dataclass_may_check_its_values() -> None:
    with pytest.raises(InvalidInput, match=r"input\[1\]: odd"):
        read(list[Even], [{"n": 2}, {"n": 3}])


def test_hashes_never_change() -> None:
    assert digest("[1]") == "080a9ed428559ef602668b4c00f114f1a11c3f6b02a435f0bdc154578e4d7f22"
    assert short_digest("[1]") == "080a9ed428559ef6"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_any_json_value_survives(value: Any) -> None:
    import json

    assert json.loads(encode(value)) == value
    assert encode(json.loads(encode(value))) == encode(value)
