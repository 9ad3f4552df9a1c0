"""What an author may declare, and when a failed attempt is repeated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from node.workflow import Context, Retry, activity, workflow
from node.workflow.core.definition import Activity
from node.workflow.errors import InvalidDefinition, InvalidInput


def test_waits_grow_up_to_the_bound() -> None:
    retry = Retry(max_attempts=None, initial_interval_s=1, backoff_coefficient=3, max_interval_s=20)
    assert [retry.wait_s(n, ValueError(), 0.5) for n in (1, 2, 3, 4, 1_000_000)] == [1, 3, 9, 20, 20]


def test_the_last_attempt_is_the_last() -> None:
    retry = Retry(max_attempts=2)
    assert retry.wait_s(1, ValueError(), 0.5) is not None
    assert retry.wait_s(2, ValueError(), 0.5) is None


def test_an_error_that_is_named_is_not_repeated_nor_are_its_subclasses() -> None:
    retry = Retry(non_retryable=(LookupError,))
    assert retry.wait_s(1, KeyError(), 0.5) is None
    assert retry.wait_s(1, ValueError(), 0.5) is not None


def test_jitter_takes_from_the_wait_and_never_adds() -> None:
    retry = Retry(max_attempts=None, initial_interval_s=8, max_interval_s=10, jitter=0.5)
    assert [retry.wait_s(1, ValueError(), chance) for chance in (0, 0.25, 0.5, 1)] == [8, 7, 6, 4]
    assert [retry.wait_s(100, ValueError(), chance) for chance in (0, 1)] == [10, 5]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_attempts": 0},
        {"initial_interval_s": -1},
        {"backoff_coefficient": 0.5},
        {"jitter": 1.5},
        {"max_interval_s": float("inf")},
        {"initial_interval_s": float("nan")},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidDefinition):
        Retry(**settings)


def test_a_timeout_must_be_positive() -> None:
    for timeout_s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidDefinition, match="timeout_s"):
            activity(timeout_s=timeout_s)(len)
        with pytest.raises(InvalidDefinition, match="timeout_s"):
            activity(len).options(timeout_s=timeout_s)


def test_an_activity_is_still_the_function() -> None:
    @activity(name="sum", retry=Retry(max_attempts=1), timeout_s=3)
    def add(a: int, b: int = 2) -> int:
        return a + b

    @activity
    async def later(a: int) -> int:
        return a

    assert (add(1), add.name, add.timeout_s, add.is_async) == (3, "sum", 3, False)
    assert (asyncio.run(later(4)), later.name, later.is_async) == (4, "later", True)


def test_options_change_the_policy_and_nothing_else() -> None:
    @activity(timeout_s=3)
    def add(a: int) -> int:
        return a

    changed = add.options(retry=Retry(max_attempts=9))
    assert (changed.retry.max_attempts, changed.timeout_s, changed.name, changed.fn) == (9, 3, "add", add.fn)
    assert add.options(timeout_s=1).timeout_s == 1


def test_arguments_are_recorded_in_the_order_of_the_signature() -> None:
    @activity
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert add.positional((), {"b": 3, "a": 1}) == [1, 3]
    assert add.positional((1,), {}) == [1]
    with pytest.raises(InvalidDefinition, match="add"):
        add.positional((1, 2, 3), {})


def test_keyword_only_arguments_are_refused() -> None:
    @activity
    def add(*, a: int) -> int:
        return a

    with pytest.raises(InvalidDefinition, match="keyword-only"):
        add.positional((), {"a": 1})


def test_a_workflow_must_be_async_and_take_ctx_and_at_most_one_input() -> None:
    def plain(ctx: Context) -> None: ...

    async def no_ctx() -> None: ...

    async def two_inputs(ctx: Context, a: int, b: int) -> None: ...

    async def any_number(ctx: Context, *rest: int) -> None: ...

    async def by_name(ctx: Context, *, a: int) -> None: ...

    for fn in (plain, no_ctx, two_inputs, any_number, by_name):
        with pytest.raises(InvalidDefinition):
            workflow(fn)  # type: ignore[arg-type] # that is the test


def test_the_input_is_checked_against_the_hint() -> None:
    @workflow
    async def one(ctx: Context, n: int) -> None: ...

    assert one.arguments(3) == (3,)
    with pytest.raises(InvalidInput, match="input"):
        one.arguments("3")


def test_no_input_uses_the_default() -> None:
    @workflow
    async def one(ctx: Context, n: int = 5) -> None: ...

    assert one.arguments(None) == ()
    assert one.arguments(3) == (3,)


def test_an_input_for_a_workflow_without_one_is_refused() -> None:
    @workflow
    async def none(ctx: Context) -> None: ...

    assert none.arguments(None) == ()
    with pytest.raises(InvalidInput, match="null"):
        none.arguments({})


def test_a_type_that_nobody_can_find_is_told_with_the_function() -> None:
    @activity
    def odd(a: Missing) -> None: ...  # type: ignore[name-defined] # noqa: F821 - that is the test

    with pytest.raises(InvalidDefinition, match=r"odd.*Missing"):
        odd.check()


def test_names_may_differ_from_the_function() -> None:
    @workflow(name="shop.checkout")
    async def checkout(ctx: Context) -> None: ...

    assert checkout.name == "shop.checkout"
    assert isinstance(activity(name="x")(len), Activity)
