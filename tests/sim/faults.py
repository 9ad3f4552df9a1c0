"""What goes wrong in a run: a list that is drawn from the seed, so that a part of it can be tried alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.sim import operator
from tests.sim.process import void
from tests.sim.store import Trouble

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

CALM_S = 50.0
"""No fault begins later, and every one ends by this moment but for what it set off."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at `at`, for `lasts` seconds, with `who`. `what` has a function of its name here."""

    at: float
    what: str
    who: str
    lasts: float = 0.0
    how: str = ""

    def __str__(self) -> str:
        how = f" {self.how}" if self.how else ""
        return f"{self.at:.2f} {self.what} {self.who} for {self.lasts:.2f} s{how}"


@dataclass(frozen=True)
class Script:
    """One run: what it is made of, and what goes wrong in it."""

    seed: int
    machines: int
    controllers: int
    solo: bool
    rates: tuple[float, ...]
    faults: tuple[Fault, ...]
    led: bool = False


KINDS: dict[str, int] = {
    "cut": 5, "island": 1, "kill_guard": 3, "kill_agent": 4, "kill_both": 2, "hang_agent": 2, "hang_guard": 2,
    "reboot": 4, "suspend": 2, "store": 5, "leave": 2, "move": 2, "kill_controller": 1, "full": 1,
    "slow_engine": 2, "flicker": 2, "sluggish": 2, "crash": 3,
}  # fmt: skip
OPERATIONS: dict[str, int] = {"purge": 2, "restore": 3, "drain": 3}
"""What operators ask for meanwhile; drawn apart, so that what goes wrong stays what it is."""
TENANTS = ("zero", "one")
STORES = ("down", "slow", "failed", "lost", "late", "busy", "mute")
CONTROLLERS = frozenset({"kill_controller", "sluggish"})
PAUSE = "pause"
"""A machine stops, its clock with it: nobody promises that one copy runs then."""


def draw(
    seed: int, kinds: dict[str, int] | None = None, count: int | None = None, *, operations: bool = False
) -> Script:
    """The script of a seed; with `operations` operators ask for something, and controllers may have a lead."""
    rng = random.Random(f"script {seed}")
    machines, controllers = rng.choice((2, 3, 3)), rng.choice((1, 2, 2))
    rates = tuple(rng.uniform(0.96, 1.04) for _ in range(machines + controllers))
    weights = KINDS if kinds is None else kinds
    names = [f"n{i}" for i in range(machines)]
    drawn = []
    for _ in range(rng.randint(2, 6) if count is None else count):
        what = rng.choices(list(weights), list(weights.values()))[0]
        at = round(rng.uniform(6.0, CALM_S - 20.0), 2)
        lasts = round(min(rng.choice((rng.uniform(0.1, 3.0), rng.uniform(3.0, 40.0))), CALM_S - at), 2)
        how = ""
        if what == "store":
            how = rng.choice(STORES)
        elif what == "sluggish":
            how = rng.choice(("2", "5", "9"))
        elif what == "reboot":
            how = rng.choice(("same", "same", "powerloss", "olddisk"))
        who = f"c{rng.randrange(controllers)}" if what in CONTROLLERS else rng.choice(names)
        drawn.append(Fault(at, what, who, lasts, how))
    solo = rng.random() < 0.2
    asked = _operations(seed, names) if operations else []
    return Script(
        seed,
        machines,
        controllers,
        solo,
        rates,
        tuple(sorted([*drawn, *asked], key=lambda f: (f.at, f.what, f.who))),
        led=operations and seed % 2 == 0,
    )


def _operations(seed: int, names: list[str]) -> list[Fault]:
    rng = random.Random(f"operations {seed}")
    asked = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        what = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        who = rng.choice(names) if what == "drain" else rng.choice(TENANTS)
        lasts = rng.uniform(1.0, 9.0) if what == "restore" else rng.uniform(1.0, 20.0)
        asked.append(Fault(round(rng.uniform(12.0, CALM_S - 15.0), 2), what, who, round(lasts, 2)))
    return asked


def begin(world: World, fault: Fault) -> None:
    """It happens now."""
    world.note(f"FAULT {fault}")
    if fault.what == "store":
        _store(world, fault)
    elif fault.what == "kill_controller":
        _kill_controller(world, fault)
    elif fault.what == "sluggish":
        world.network.slow[fault.who] = float(fault.how or 1.5)
        world.scheduler.after(fault.lasts, lambda: void(world.network.slow.pop(fault.who, None)))
    elif fault.what in OPERATIONS:
        getattr(operator, fault.what)(world, fault.who, fault.lasts)
    elif fault.what == "move":
        world.move(world.rng.choice(list(world.specs)))
    else:
        _MACHINE[fault.what](world, world.machines[fault.who], fault)


def _store(world: World, fault: Fault) -> None:
    share = world.rng.uniform(0.3, 0.9)
    world.network.trouble = {
        "down": Trouble(down=True),
        "slow": Trouble(slow_s=12.0 * share),
        "failed": Trouble(failed=share),
        "lost": Trouble(lost=share),
        "late": Trouble(late=share),
        "busy": Trouble(busy=share),
        "mute": Trouble(mute=True),
    }[fault.how]
    current = world.network.trouble

    def over() -> None:
        if world.network.trouble is current:
            world.network.trouble = Trouble()

    world.scheduler.after(fault.lasts, over)


def _kill_controller(world: World, fault: Fault) -> None:
    c, world.disturbed = world.controllers[fault.who], True
    c.die()
    world.scheduler.after(fault.lasts, c.start)


def _cut(world: World, m: Machine, fault: Fault) -> None:
    world.network.cut.add(m.name)
    world.scheduler.after(fault.lasts, lambda: world.network.cut.discard(m.name))


def _flicker(world: World, m: Machine, fault: Fault) -> None:
    """What it sends arrives, no answer does; then one answer about its lease; then nothing arrives any more."""
    world.network.deaf.add(m.name)
    then = replace(fault, lasts=max(fault.lasts, 20.0))

    def last_word() -> None:
        world.network.deaf.discard(m.name)
        if not world.calm:
            world.network.last_word[m.name] = lambda: _cut(world, m, then)

    world.scheduler.after(world.rng.uniform(4.0, 9.0), last_word)


def _crash(world: World, m: Machine, fault: Fault) -> None:
    """A container dies by itself."""
    running = [c for c in m.containers.values() if c.running]
    if running:
        m.stop(world.rng.choice(running))


def _island(world: World, m: Machine, fault: Fault) -> None:
    pairs = {(c, m.name) for c in world.controllers}
    world.islands |= pairs
    world.scheduler.after(fault.lasts, lambda: world.islands.difference_update(pairs))


def _kill_guard(world: World, m: Machine, fault: Fault) -> None:
    if m.guard is not None:
        m.guard.die()
        world.tend(m)


def _kill_agent(world: World, m: Machine, fault: Fault) -> None:
    if m.agent is not None:
        m.agent.die()
        world.tend(m)


def _kill_both(world: World, m: Machine, fault: Fault) -> None:
    if m.guard is not None:
        m.guard.die()
    if m.agent is not None:
        m.agent.die()
    world.tend(m, slow_s=fault.lasts if fault.how == "long" else min(fault.lasts, 3.0))


def _hang_agent(world: World, m: Machine, fault: Fault) -> None:
    """Stopped; the guard kills what says nothing for 20 s."""
    agent = m.agent
    if agent is None or m.guard is None:
        return
    agent.process.pause()

    def over() -> None:
        if agent.process.alive and fault.lasts < 20.0:
            if not m.paused:
                agent.process.go_on()
        elif m.agent is agent:
            agent.die()
            world.tend(m)

    world.scheduler.after(min(fault.lasts, 20.0), over)


def _hang_guard(world: World, m: Machine, fault: Fault) -> None:
    """Stopped; the agent replaces what says nothing for 8 s."""
    guard = m.guard
    if guard is None or m.agent is None:
        return
    guard.process.pause()

    def over() -> None:
        if guard.process.alive and fault.lasts < 8.0:
            if not m.paused:
                guard.process.go_on()
        elif m.guard is guard:
            guard.die()
            world.tend(m)

    world.scheduler.after(min(fault.lasts, 8.0), over)


def _reboot(world: World, m: Machine, fault: Fault) -> None:
    if not m.on:
        return
    image = m.image if fault.how == "olddisk" else None
    m.power_off()
    if fault.how == "powerloss":
        for vol in m.disk.volumes.values():
            for file in vol.files.values():
                file.lose_tail(world.rng)
    elif image is not None:
        m.disk = image.image()

    def back() -> None:
        m.power_on()
        world.tend(m)

    world.scheduler.after(max(fault.lasts, 1.0), back)


def _suspend(world: World, m: Machine, fault: Fault) -> None:
    """The machine stands still and its clocks count it."""
    m.pause(clock_stops=False)
    world.scheduler.after(fault.lasts, m.resume)


def _pause(world: World, m: Machine, fault: Fault) -> None:
    m.pause(clock_stops=True)
    world.scheduler.after(fault.lasts, m.resume)


def _leave(world: World, m: Machine, fault: Fault) -> None:
    """SIGTERM; it comes again."""
    if m.guard is not None and m.guard.guard is not None:
        guard = m.guard
        guard.process.call_soon(guard.guard.stop)


def _full(world: World, m: Machine, fault: Fault) -> None:
    m.full = True

    def over() -> None:
        m.full = False

    world.scheduler.after(fault.lasts, over)


def _slow_engine(world: World, m: Machine, fault: Fault) -> None:
    m.engine_s = 8.0

    def over() -> None:
        m.engine_s = 0.5

    world.scheduler.after(fault.lasts, over)


_MACHINE: dict[str, Callable[[World, Machine, Fault], None]] = {
    "cut": _cut, "island": _island, "kill_guard": _kill_guard, "kill_agent": _kill_agent, "kill_both": _kill_both,
    "hang_agent": _hang_agent, "hang_guard": _hang_guard, "reboot": _reboot, "suspend": _suspend, "pause": _pause,
    "leave": _leave, "full": _full, "slow_engine": _slow_engine,
    "flicker": _flicker, "crash": _crash,
}  # fmt: skip
