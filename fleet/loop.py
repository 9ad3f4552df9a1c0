"""The loop: whoever is dirty is reconciled at once; a safety pass looks at everybody now and then."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

import structlog

from fleet.core.actions import Action
from fleet.core.reconcile import reconcile
from fleet.execute import Executor
from fleet.metrics import Metrics
from fleet.observe import Observer
from fleet.world import World

# For what no event announces: a purge that became due, a report that was expected and did not come.
SAFETY_S = 30.0

log = structlog.get_logger("fleet.loop")


class Loop:
    """Reconciles. A change calls `wake`, and its tenant is acted on before the event loop does anything else.

    `acts` says whether this controller is the one that acts; others watch, answer reads, and take over. Two that act
    are harmless: every write is a compare-and-swap, every assignment may be repeated.
    """

    def __init__(
        self,
        world: World,
        executor: Executor,
        observer: Observer,
        metrics: Metrics,
        acts: Callable[[], bool] = lambda: True,
    ) -> None:
        self._world = world
        self._executor = executor
        self._observer = observer
        self._metrics = metrics
        self._acts = acts
        self._scheduled = False
        world.on_dirty = self.wake

    def wake(self) -> None:
        """There is something to look at."""
        if not self._scheduled and self._world.loaded:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    async def run(self) -> None:
        """Safety passes, until cancelled."""
        while True:
            self._world.touch_all()
            await asyncio.sleep(SAFETY_S)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            self._pass()
        except Exception:
            log.exception("a reconcile pass failed")

    def _pass(self) -> None:
        begin = time.perf_counter()
        dirty, self._world.dirty = self._world.dirty, set()
        for tenant in dirty:
            self._observer.look(tenant)
        ready = [t for t in dirty | self._leaving() if self._executor.ready(t)] if self._acts() else []
        if not ready:
            return
        actions = reconcile(self._world.specs, self._world.is_, self._world.clock(), only=ready)
        grouped: dict[str, list[Action]] = defaultdict(list)
        for action in actions:
            grouped[action.tenant].append(action)
        for tenant, todo in grouped.items():
            if not self._observer.parked(todo):
                self._executor.start(tenant, todo)
        self._metrics.reconcile_duration.observe(time.perf_counter() - begin)

    def _leaving(self) -> set[str]:
        """Who is on a machine that is drained: the turn of one comes when another one has arrived."""
        drained = (name for name, machine in self._world.machines.items() if machine.drain and machine.reachable)
        return {t.tenant for name in drained for t in self._world.nodes[name].tenants}
