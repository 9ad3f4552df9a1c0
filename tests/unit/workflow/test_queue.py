"""Who leaves a queue when: the limits hold at every moment, and nobody waits for ever."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.workflow.core.queue import PLACES_A_POINT, Queue, Usage, Waiting, free, place, select
from node.workflow.errors import InvalidInput

limits = st.none() | st.integers(1, 4)


def waiting(*keys: str | None) -> list[Waiting]:
    return [Waiting(f"r{i}", key, i) for i, key in enumerate(keys)]


def test_runs_leave_in_order_up_to_the_concurrency() -> None:
    chosen = select(Queue("q", concurrency=3), waiting(None, None, None), Usage(running=1), 0)
    assert [w.run_id for w in chosen] == ["r0", "r1"]


def test_a_key_at_its_limit_is_passed_over() -> None:
    chosen = select(Queue("q", per_key=1), waiting("a", "a", "b", None, None), Usage(1, {"b": 1}), 0)
    assert [w.run_id for w in chosen] == ["r0", "r3", "r4"]


def test_a_rate_limit_says_when_to_look_again() -> None:
    queue = Queue("q", rate_limit=2, rate_period_s=10)
    assert free(queue, Usage(), 100_000) == (2, 110_000)
    assert free(queue, Usage(begun=(95_000, 99_000)), 100_000) == (0, 105_000)
    assert free(queue, Usage(begun=(90_000, 99_000)), 100_000) == (1, 109_000)


def test_what_began_in_the_future_of_a_clock_that_went_back_holds_nobody() -> None:
    assert free(Queue("q", rate_limit=1, rate_period_s=10), Usage(begun=(3_700_000,)), 100_000)[0] == 1


def test_nothing_leaves_a_paused_queue() -> None:
    assert select(Queue("q", paused=True), waiting(None), Usage(), 0) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"concurrency": 0},
        {"per_key": -1},
        {"rate_limit": 1},
        {"rate_period_s": 1.0},
        {"rate_limit": 1, "rate_period_s": 0.0},
        {"rate_limit": 1, "rate_period_s": float("nan")},
    ],
)
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Queue(**{"name": "q", **wrong})  # type: ignore[arg-type]  # wrong on purpose


class Model:
    """A queue over time: runs arrive, leave by the rule, and end."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.now_ms = 0
        self.arrivals = 0
        self.waiting: list[Waiting] = []
        self.running: list[Waiting] = []
        self.begun: list[int] = []
        self.left: list[int] = []  # arrival numbers, in the order they left
        self.number: dict[str, int] = {}

    def arrive(self, priority: int, key: str | None) -> None:
        run = Waiting(f"r{self.arrivals}", key, place(self.arrivals, priority))
        self.number[run.run_id] = self.arrivals
        self.arrivals += 1
        self.waiting.append(run)

    def turn(self) -> int:
        usage = Usage(len(self.running), Counter(r.key for r in self.running if r.key is not None), tuple(self.begun))
        self.waiting.sort(key=lambda w: (w.place, w.run_id))
        chosen = select(self.queue, self.waiting, usage, self.now_ms)
        for run in chosen:
            self.waiting.remove(run)
            self.running.append(run)
            self.begun.append(self.now_ms)
            self.left.append(self.number[run.run_id])
        return len(chosen)

    def check(self) -> None:
        queue = self.queue
        assert queue.concurrency is None or len(self.running) <= queue.concurrency
        by_key = Counter(r.key for r in self.running if r.key is not None)
        assert queue.per_key is None or all(n <= queue.per_key for n in by_key.values())
        if queue.rate_limit is not None and queue.rate_period_ms is not None:
            within = [at for at in self.begun if at > self.now_ms - queue.rate_period_ms]
            assert len(within) <= queue.rate_limit


queues = st.builds(
    lambda concurrency, per_key, rate: Queue("q", concurrency, per_key, rate, None if rate is None else 1.0),
    limits,
    limits,
    limits,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(-3, 3), st.none() | st.sampled_from("ab")),
        st.tuples(st.just("end"), st.integers(0, 10), st.none()),
        st.tuples(st.just("wait"), st.integers(1, 1500), st.none()),
    ),
    max_size=60,
)


@given(queues, steps)
@settings(max_examples=200, deadline=None)
def test_the_limits_hold_at_every_moment_and_everybody_leaves_once(queue: Queue, steps: list) -> None:
    model = Model(queue)
    for what, number, key in steps:
        if what == "arrive":
            model.arrive(number, key)
        elif what == "wait":
            model.now_ms += number
        elif model.running:
            model.running.pop(number % len(model.running))
        model.turn()
        model.check()
    for _ in range(4 * len(steps) + 4):  # all end, time goes on: the queue drains
        model.running.clear()
        model.now_ms += 1000
        model.turn()
        model.check()
    assert not model.waiting
    assert sorted(model.left) == list(range(model.arrivals))


@given(st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_a_run_is_overtaken_by_at_most_a_hundred_others_for_a_point_of_priority(seed: int, least: int) -> None:
    """Against a flood of urgent runs, two for each place that gets free."""
    chance = random.Random(seed)
    model = Model(Queue("q", concurrency=1))
    model.arrive(least, None)
    for _ in range(2 * PLACES_A_POINT * (least + 3) + 10):
        for _ in range(2):
            model.arrive(chance.randint(-3, 0), None)
        model.running.clear()
        model.turn()
        if 0 in model.left:
            break
    else:
        raise AssertionError("the first run never left")
    assert model.left.index(0) <= PLACES_A_POINT * (least + 3)
