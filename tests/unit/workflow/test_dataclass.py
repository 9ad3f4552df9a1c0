"""The made classes behave as those of `dataclasses`: the same questions are put to both."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from dataclasses import FrozenInstanceError, field
from typing import Any

import pytest

from node.workflow.values import dataclass as own

MAKERS: list[Any] = [dataclasses.dataclass, own.dataclass]


@pytest.fixture(params=MAKERS, ids=["dataclasses", "own"])
def dataclass(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def point(dataclass: Any) -> Any:
    @dataclass(frozen=True, slots=True)
    class Point:
        """A place."""

        x: int
        y: int = 7
        tags: list[str] = field(default_factory=list, compare=False)
        secret: str = field(default="s", repr=False)
        whole: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "whole", self.x + self.y)

    return Point


def test_it_is_made_of_its_fields_by_place_and_by_name(point: Any) -> None:
    one = point(1, secret="t")
    assert (one.x, one.y, one.tags, one.secret, one.whole) == (1, 7, [], "t", 8)
    assert point(1).tags is not point(1).tags
    assert list(inspect.signature(point).parameters) == ["x", "y", "tags", "secret"]
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'x'"):
        point()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        point(1, z=2)


def test_equal_values_are_equal_and_have_one_hash(point: Any) -> None:
    assert point(1, tags=["a"]) == point(1, tags=["b"])
    assert hash(point(1)) == hash(point(1))
    assert point(1) != point(2)
    assert point(1) != (1, 7, [], "s", 8)


def test_it_shows_itself(point: Any) -> None:
    assert repr(point(1)).endswith("Point(x=1, y=7, tags=[], whole=8)")
    one = point(1)
    one.tags.append(one)
    assert repr(one).endswith("Point(x=1, y=7, tags=[...], whole=8)")


def test_what_is_frozen_stays(point: Any) -> None:
    one = point(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x
    assert not hasattr(one, "__dict__")


def test_the_tools_of_dataclasses_know_it(point: Any) -> None:
    one: Any = dataclasses.replace(point(1), y=2)
    assert (one.y, one.whole) == (2, 3)
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": [], "secret": "s", "whole": 3}
    assert copy.copy(one) == one
    assert copy.deepcopy(one) == one
    assert dataclasses.is_dataclass(one)
    assert point.__match_args__ == ("x", "y", "tags", "secret")


def test_without_slots_it_has_a_dict_and_is_copied_too(dataclass: Any) -> None:
    @dataclass(frozen=True)
    class Plain:
        name: str

    one = Plain("a")
    assert one.__dict__ == {"name": "a"}
    assert copy.copy(one) == one


def test_what_may_change_has_no_hash(dataclass: Any) -> None:
    @dataclass(slots=True)
    class Count:
        done: int = 0

    one = Count()
    one.done += 1
    assert one == Count(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_without_eq_only_the_same_one_is_equal(dataclass: Any) -> None:
    @dataclass(frozen=True, eq=False)
    class Named:
        name: str

    one = Named("a")
    assert one != Named("a")
    assert {one: 1}[one] == 1
