"""One simulated fleet from its start until its faults have stopped and everything has settled."""

from __future__ import annotations

import gc
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from fleet.core import change
from node.agent.custody.context import Bounds
from node.agent.custody.session import Mode
from node.bucket.records import Cordon, Record, Spec
from node.bucket.spec import TenantSpec
from tests.sim import faults, operator, process, seams
from tests.sim.agent import AgentProcess
from tests.sim.client import User
from tests.sim.clock import Clock, Scheduler
from tests.sim.controller import Controller
from tests.sim.faults import CALM_S, Script
from tests.sim.guard import GuardProcess
from tests.sim.judge import Judge, Violation
from tests.sim.machine import Machine
from tests.sim.store import Bucket, Network

PATIENCE_S = 240.0
STEP_S = 5.0
IMAGE_S = 12.0
_COLLECT_EVERY = 20
_runs = 0


@dataclass(frozen=True)
class Rules:
    """Rules that the world itself keeps, each of which a broken variant may switch."""

    late_start_escapes: bool = False


AS_IS = Rules()


@dataclass(frozen=True)
class Result:
    """How a run ended. `trace` is one line an event, the same bytes for the same script."""

    script: Script
    violations: tuple[Violation, ...]
    trace: tuple[str, ...]
    events: int
    acknowledged: int
    ended_at: float


class World:
    """Everything there is. Made for one run."""

    retention_s = 15.0

    def __init__(self, script: Script, rules: Rules, *, verbose: bool) -> None:
        self.script = script
        self.rules = rules
        self.verbose = verbose
        self.trace: list[str] = []
        self.scheduler = Scheduler()
        self.rng = random.Random(f"world {script.seed}")
        self.bucket = Bucket(lambda: self.scheduler.now)
        self.network = Network(self.scheduler, self.rng, self.bucket)
        self.network.note = self.note
        self.islands: set[tuple[str, str]] = set()
        self.founding: Mode = "solo" if script.solo else "shared"
        self.bounds = Bounds(settle_s=60.0)
        self.calm = self.disturbed = False
        self.cordons: dict[str, Cordon] = {}
        self._number = 0
        self.specs = {"zero": _spec(0.0), "one": _spec(1.0)}
        self.wanted = {
            t: Spec(nonce="", tenant=t, generation=1, want="up", spec=s, created_at=0.0, updated_at=0.0)
            for t, s in self.specs.items()
        }
        self.machines: dict[str, Machine] = {}
        self.controllers: dict[str, Controller] = {}
        self.judge = Judge(self)
        self.bucket.wrote, self.bucket.deleted = self.judge.wrote, self.judge.deleted
        self.bucket.uploaded = self.judge.uploaded
        self.users: list[User] = []
        self.decoded: dict[tuple[type[Record], bytes], Record] = {}

    # ---- what everything in it uses

    def number(self) -> int:
        """The next number: nonces, rows, volumes."""
        self._number += 1
        return self._number

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{self.scheduler.now:10.4f} {text}")

    def crashed(self, process: str, error: BaseException) -> None:
        """A process of the product ended with an error."""
        self.judge.find("defect", f"{process.split('/')[-1]} does not end with an error", f"{process}: {error!r}")

    def caught(self, event: str) -> None:
        """The product caught an error that it calls a defect."""
        error = sys.exc_info()[1]
        self.judge.find("defect", f"nothing unforeseen: {event}", f"{error!r}")

    # ---- processes

    def tend(self, m: Machine, slow_s: float = 0.0) -> None:
        """Whoever lives starts who has died, in a while."""
        if m.guard is None:
            self.scheduler.after(self.rng.uniform(0.3, 3.0) + slow_s, lambda: self._start_guard(m))
        if m.agent is None:
            self.scheduler.after(self.rng.uniform(0.3, 2.0) + slow_s, lambda: self._start_agent(m))

    def _start_guard(self, m: Machine) -> None:
        if m.on and m.guard is None:
            self.note(f"{m.name}: guard starts")
            GuardProcess(m)

    def _start_agent(self, m: Machine) -> None:
        if m.on and m.agent is None and m.guard is not None:
            self.note(f"{m.name}: agent starts")
            AgentProcess(m)

    def left(self, m: Machine) -> None:
        """A guard has left as it was told to; the machine joins again."""
        if m.guard is not None:
            m.guard.die()
        self.scheduler.after(self.rng.uniform(2.0, 15.0), lambda: self.tend(m))

    def engine_start(self, m: Machine, land: Callable[[], None]) -> None:
        """The engine takes its time."""
        self.scheduler.after(self.rng.uniform(0.05, m.engine_s), land)

    def move(self, tenant: str) -> None:
        """An operator wants a tenant on another machine."""
        old = self.wanted[tenant]
        node = self.rng.choice([*self.machines, None])
        spec = old.spec.model_copy(update={"node": node})
        self.note(f"{tenant} is wanted on {node}")
        self.wanted[tenant] = change.next_of(old, self.scheduler.now, spec=spec)

    # ---- the run

    def run(self) -> None:
        """From nothing to the end."""
        s = self.script
        for i in range(s.machines):
            name = f"n{i}"
            m = Machine(self, name, Clock(self.scheduler, s.rates[i]), zone=f"z{i}")
            self.machines[name] = m
            joins = 0.1 * i if i == 0 or not s.solo else 15.0 + 5.0 * i
            self.scheduler.after(joins, lambda m=m: self.tend(m))  # type: ignore[misc] # the loop's own m
        for i in range(s.controllers):
            self.controllers[f"c{i}"] = Controller(self, f"c{i}", s.rates[s.machines + i])
        self.users = [User(self, t) for t in self.specs]
        for f in s.faults:
            self.scheduler.at(f.at, lambda f=f: faults.begin(self, f))  # type: ignore[misc] # the loop's own f
        self._take_image()
        self.scheduler.run(CALM_S)
        self._calm()
        while self.scheduler.now < CALM_S + PATIENCE_S and not self._over():
            self.scheduler.run(self.scheduler.now + STEP_S)
        self.judge.finish()
        for v in self.judge.violations:
            self.note(str(v))

    def _calm(self) -> None:
        self.note("calm: no faults from here on")
        self.calm = True
        self.network.last_word.clear()
        for node in list(self.cordons):
            operator.opened(self, node)
        for tenant, old in self.wanted.items():
            if old.spec.node is not None:
                spec = old.spec.model_copy(update={"node": None})
                self.wanted[tenant] = change.next_of(old, self.scheduler.now, spec=spec)

    def _over(self) -> bool:
        stop = any(v.kind != "bounded" for v in self.judge.violations)
        return stop or (self.scheduler.now > CALM_S + 10.0 and not any(map(self.judge.settled, self.specs)))

    def _take_image(self) -> None:
        for m in self.machines.values():
            m.image = m.disk.image()
        self.scheduler.after(IMAGE_S, self._take_image)


def _spec(rpo_s: float) -> TenantSpec:
    spec = TenantSpec(image="sim", databases=("a.db", "b.db"), rpo=rpo_s, calls_durable=True)
    return spec.model_copy(update={"retention": World.retention_s})


@contextmanager
def quiet() -> Iterator[None]:
    """For any number of runs. Coroutines of killed processes are dropped between two of them, never in one: what they
    say then is of no interest."""
    hook, was = sys.unraisablehook, gc.isenabled()
    gc.disable()
    gc.freeze()
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that was killed before its first step
            yield
    finally:
        gc.collect()
        gc.unfreeze()
        sys.unraisablehook = hook
        if was:
            gc.enable()


def run(
    script: Script,
    *,
    rules: Rules | None = None,
    broken: AbstractContextManager[None] | None = None,
    verbose: bool = False,
) -> Result:
    """Carry a script out, with one rule broken if so wished; inside of `quiet`."""
    global _runs
    _runs += 1
    if _runs % _COLLECT_EVERY == 0:
        gc.collect()
    return _run(script, rules or AS_IS, broken or nullcontext(), verbose=verbose)


def _run(script: Script, rules: Rules, broken: AbstractContextManager[None], *, verbose: bool) -> Result:
    world = World(script, rules, verbose=verbose)
    try:
        with seams.installed(world), broken, world.judge.lost.told():
            world.run()
    finally:
        process.over()
    acknowledged = sum(map(len, world.judge.acks.values()))
    return Result(
        script,
        tuple(world.judge.violations),
        tuple(world.trace),
        world.scheduler.events,
        acknowledged,
        world.scheduler.now,
    )


def of_seed(seed: int, *, verbose: bool = False) -> Result:
    """The run of a seed with every rule as it is."""
    return run(faults.draw(seed), verbose=verbose)


def without(script: Script, faults_left: tuple[faults.Fault, ...]) -> Script:
    """The same run with fewer faults."""
    return replace(script, faults=faults_left)
