"""Schedules on a real file: overlap, clocks, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.workflow import Context, Engine, errors, workflow
from node.workflow.core.schedule import Schedule
from tests.integration.workflow.served import run, served, until

START_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
MINUTE = 60.0


@workflow
async def nothing(ctx: Context, input: Any = None) -> Any:
    return input


@workflow
async def waiting(ctx: Context) -> Any:
    return await ctx.wait_signal("go")


class Clock:
    """The time of a test, and its alarm."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = START_S + 30
        self.engine: Engine | None = None

    @asynccontextmanager
    async def served(self, *schedules: Schedule) -> AsyncIterator[Engine]:
        async with served(self.path, nothing, waiting, clock=lambda: self.now_s, schedules=schedules) as engine:
            self.engine = engine
            await self.settled()
            yield engine

    async def goes_on(self, seconds: float) -> None:
        self.now_s += seconds
        await self.settled()

    async def settled(self) -> None:
        """Until everything that is due is decided."""
        assert self.engine is not None
        for _ in range(50):
            self.engine._executive._alarm.ring()
            await until(lambda: self.engine.schedules._looking is None)
            for _ in range(3):
                await asyncio.sleep(0.002)
            if self.engine.schedules._looking is None and not self.engine.schedules._touched:
                due = [s.next_at for s in self.engine.schedules.list() if s.next_at is not None]
                if all(at > self.now_s for at in due):
                    return

    def runs(self, **question: Any) -> list[str]:
        assert self.engine is not None
        return sorted(r.id.removeprefix("s:2026-01-01T") for r in self.engine.list(limit=1000, **question).runs)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "workflow.db")


def minutely(workflow: str = "nothing", **more: Any) -> Schedule:
    return Schedule("s", workflow, "* * * * *", **more)


def test_a_run_begins_at_each_time_with_the_input_of_the_schedule(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served(minutely(input={"n": 1}, attributes={"by": "clock"})) as engine:
            assert clock.runs() == []
            await clock.goes_on(MINUTE)
            await clock.goes_on(MINUTE)
            assert clock.runs(schedule="s", attributes={"by": "clock"}) == ["00:01:00Z", "00:02:00Z"]
            assert (await engine.result("s:2026-01-01T00:01:00Z")).unwrap() == {"n": 1}
            shown = engine.schedules.get("s")
            assert [(f.outcome, f.at) for f in shown.newest] == [("started", START_S + 120), ("started", START_S + 60)]
            assert shown.next_at == START_S + 180

    run(main)


def test_what_was_missed_while_nothing_ran_is_made_up_for(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served(minutely(overlap="allow_all", catchup_window_s=180)):
            await clock.goes_on(MINUTE)
        clock.now_s += 10 * MINUTE
        async with clock.served(minutely(overlap="allow_all", catchup_window_s=180)) as engine:
            assert clock.runs() == ["00:01:00Z", "00:09:00Z", "00:10:00Z", "00:11:00Z"]
            note = engine.schedules.get("s").note
            assert note is not None
            assert "past the catch-up window" in note

    run(main)


@pytest.mark.parametrize(
    ("overlap", "after_three", "after_the_end"),
    [
        ("skip", {"00:01:00Z": "running"}, {"00:01:00Z": "completed"}),
        ("buffer_one", {"00:01:00Z": "running"}, {"00:01:00Z": "completed", "00:02:00Z": "running"}),
        ("buffer_all", {"00:01:00Z": "running"}, {"00:01:00Z": "completed", "00:02:00Z": "running"}),
        (
            "cancel_other",
            {"00:01:00Z": "cancelled", "00:02:00Z": "cancelled", "00:03:00Z": "running"},
            None,
        ),
        (
            "terminate_other",
            {"00:01:00Z": "terminated", "00:02:00Z": "terminated", "00:03:00Z": "running"},
            None,
        ),
        ("allow_all", dict.fromkeys(["00:01:00Z", "00:02:00Z", "00:03:00Z"], "running"), None),
    ],
)
def test_a_time_that_comes_while_a_run_is_open_follows_the_overlap_policy(
    clock: Clock, overlap: Any, after_three: dict[str, str], after_the_end: dict[str, str] | None
) -> None:
    def states() -> dict[str, str]:
        return {r.id.removeprefix("s:2026-01-01T"): r.state for r in clock.engine.list().runs}

    async def main() -> None:
        async with clock.served(minutely("waiting", overlap=overlap)) as engine:
            for _ in range(3):
                await clock.goes_on(MINUTE)
            await until(lambda: states() == after_three)
            if after_the_end is not None:
                await engine.signal("s:2026-01-01T00:01:00Z", "go")
                await until(lambda: states() == after_the_end)

    run(main)


def test_whatever_is_buffered_outlives_the_process(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served(minutely("waiting", overlap="buffer_one")):
            for _ in range(3):
                await clock.goes_on(MINUTE)
        async with clock.served() as engine:
            await engine.signal("s:2026-01-01T00:01:00Z", "go")
            await until(lambda: clock.runs(state="running") == ["00:02:00Z"])

    run(main)


def test_a_clock_that_goes_back_an_hour_fires_nothing_twice_and_then_goes_on(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served(minutely(overlap="allow_all")):
            await clock.goes_on(61 * MINUTE)
            fired = clock.runs()
            assert len(fired) == 61
            await clock.goes_on(-60 * MINUTE)
            for _ in range(59):
                await clock.goes_on(MINUTE)
            assert clock.runs() == fired
            await clock.goes_on(2 * MINUTE)
            assert len(clock.runs()) == 62

    run(main)


def test_a_clock_that_was_ahead_a_year_loses_nothing_that_came_after(clock: Clock) -> None:
    year = 365 * 24 * 3600

    async def main() -> None:
        async with clock.served(minutely(overlap="allow_all", catchup_window_s=120)):
            await clock.goes_on(MINUTE)
            await clock.goes_on(year)
            ahead = [r for r in clock.runs() if "2027" in r]
            assert len(ahead) == 2
            await clock.goes_on(-year)
            await clock.goes_on(MINUTE)
            await clock.goes_on(MINUTE)
            assert [r for r in clock.runs() if "2027" not in r] == ["00:01:00Z", "00:02:00Z", "00:03:00Z"]
            assert [r for r in clock.runs() if "2027" in r] == ahead

    run(main)


def test_firings_that_are_forgotten_are_not_fired_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.workflow.log.schedules.KEPT_FIRINGS", 5)

    async def main() -> None:
        async with clock.served(minutely(overlap="allow_all")):
            for _ in range(10):
                await clock.goes_on(MINUTE)
            fired = clock.runs()
            assert len(fired) == 10
            kept = len(clock.engine._executive.store.rows("SELECT 1 FROM firings"))
            assert kept <= 6
            await clock.goes_on(-9 * MINUTE)
            for _ in range(9):
                await clock.goes_on(MINUTE)
            assert clock.runs() == fired

    run(main)


def test_a_paused_schedule_starts_nothing_and_does_not_make_up_for_it(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served(minutely()) as engine:
            await engine.schedules.pause("s", True)
            await clock.goes_on(5 * MINUTE)
            assert clock.runs() == []
            assert engine.schedules.get("s").next_at is None
        async with clock.served(minutely()) as engine:
            assert engine.schedules.get("s").paused
            await engine.schedules.pause("s", False)
            await clock.goes_on(MINUTE)
            assert clock.runs() == ["00:06:00Z"]

    run(main)


def test_a_schedule_can_be_triggered_changed_and_deleted(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served() as engine:
            assert await engine.schedules.put(minutely())
            assert not await engine.schedules.put(minutely())
            started = await engine.schedules.trigger("s")
            assert engine.get(started.run_id).schedule == "s"
            await engine.schedules.put(Schedule("s", "nothing", "@hourly", input=2))
            await clock.goes_on(5 * MINUTE)
            assert clock.runs() == [started.run_id]
            await clock.goes_on(60 * MINUTE)
            assert clock.runs(schedule="s") == ["01:00:00Z", started.run_id]
            await engine.schedules.delete("s")
            await clock.goes_on(60 * MINUTE)
            assert len(clock.runs()) == 2
            with pytest.raises(errors.NoSuchSchedule):
                engine.schedules.get("s")
            with pytest.raises(errors.UnknownWorkflow):
                await engine.schedules.put(Schedule("t", "nosuch", "@daily"))
            with pytest.raises(errors.InvalidInput):
                await engine.schedules.put(Schedule("t", "waiting", "@daily", input=1))

    run(main)


def test_a_time_whose_run_was_started_but_not_written_down_is_not_started_again(clock: Clock) -> None:
    async def main() -> None:
        async with clock.served(minutely("waiting", overlap="buffer_all")) as engine:
            await engine.start("waiting", run_id="s:2026-01-01T00:01:00Z")  # as a process did that then died
            await clock.goes_on(MINUTE)
            assert [f.outcome for f in engine.schedules.get("s").newest] == ["started"]
            assert clock.runs() == ["00:01:00Z"]

    run(main)
