"""Carries actions out: each tenant's in order, any number of tenants side by side, bounded for each node."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import structlog

from fleet.agents import Agent, AgentRefused
from fleet.bucket import translated
from fleet.core import change
from fleet.core.actions import Action, Assign, FinishPurge, MarkProven, Park, Purge, RollBack
from fleet.core.model import Sent
from fleet.core.reconcile import RESEND_S
from fleet.desk import Desk
from fleet.errors import Conflict, FleetError, Invalid, NotFound, Unavailable
from fleet.events import Events
from fleet.vault import Vault, sha256_of
from fleet.world import World
from node.api import Assignment
from node.bucket.records import Spec

# Calls to one node at a time: a slow node delays its own tenants only.
PER_NODE = 16
FIRST_S = 0.2
LONGEST_S = 30.0

_REASONS = {AgentRefused: "refused", Unavailable: "unsent", NotFound: "unsent", Conflict: "secrets", Invalid: "secrets"}

log = structlog.get_logger("fleet.execute")


class Outdated(Exception):
    """The spec changed since this was decided: there is something else to do now."""


@dataclass(frozen=True, slots=True)
class _Failing:
    """A tenant whose last actions failed: `count` in a row at this generation, the last one towards `node`."""

    generation: int
    count: int
    until: float
    node: str | None


class Executor:
    """One task a tenant at most. A failure is noted, and the tenant is looked at again after a growing pause."""

    def __init__(
        self,
        world: World,
        desk: Desk,
        vault: Vault,
        events: Events,
        agents: Mapping[str, Agent],
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._world = world
        self._desk = desk
        self._vault = vault
        self._events = events
        self._agents = agents
        self._draw = draw
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failing: dict[str, _Failing] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def ready(self, tenant: str) -> bool:
        """Whether this tenant may be acted on now: nothing under way, and not in a pause after a failure."""
        if tenant in self._tasks:
            return False
        failing = self._failing.get(tenant)
        spec = self._world.specs.get(tenant)
        if failing is None or spec is None or spec.generation != failing.generation:
            return True
        machine = self._world.machines.get(failing.node or "")
        if machine is not None and not machine.reachable:
            return True  # that machine is asked nothing more: what comes now is for another one
        return asyncio.get_running_loop().time() >= failing.until

    def start(self, tenant: str, actions: Sequence[Action]) -> None:
        """Begin a tenant's actions. What is to be sent counts at once: others are looked at before it is answered."""
        for action in actions:
            if isinstance(action, Assign):
                self._world.mark_sending(tenant, self._sent(action))
        self._tasks[tenant] = asyncio.create_task(self._run(tenant, tuple(actions)), name=f"act:{tenant}")

    async def close(self) -> None:
        """Stop what is under way; whoever starts next finds it in the bucket and goes on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, tenant: str, actions: tuple[Action, ...]) -> None:
        node = None
        try:
            for action in actions:
                node = action.node if isinstance(action, Assign | Purge) else None
                await self._do(action)
            self._recovered(tenant)
            failure: FleetError | None = None
        except Outdated:
            failure = None
            self._world.not_sent(tenant)
        except FleetError as e:
            failure = e
        except Exception as e:
            log.exception("an action failed", tenant=tenant)
            failure = FleetError(f"{type(e).__name__}: {e}", tenant=tenant)
        finally:
            self._tasks.pop(tenant, None)
        if failure is None:
            self._world.touch(tenant)
        else:
            self._failed(tenant, failure, node)

    def _recovered(self, tenant: str) -> None:
        if self._failing.pop(tenant, None) is not None:
            note = self._world.notes.get(tenant)
            if note is not None and note[0] in {"error", *_REASONS.values()}:
                del self._world.notes[tenant]

    def _failed(self, tenant: str, error: FleetError, node: str | None) -> None:
        spec = self._world.specs.get(tenant)
        generation = spec.generation if spec is not None else 0
        before = self._failing.get(tenant)
        count = before.count + 1 if before is not None and before.generation == generation else 1
        if isinstance(error, AgentRefused | NotFound | Conflict | Invalid):
            self._world.not_sent(tenant)  # after anything else it may have come through
        wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(count - 1, 16)) * (0.5 + self._draw() / 2)
        loop = asyncio.get_running_loop()
        self._failing[tenant] = _Failing(generation, count, loop.time() + wait_s, node)
        loop.call_later(wait_s + 0.001, self._world.touch, tenant)
        reason = _REASONS.get(type(error), "error")
        self._world.note(tenant, reason, str(error))
        if count in (1, 5, 20):
            self._events.emit("retry", str(error), tenant=tenant, generation=generation, reason=reason)

    async def _do(self, action: Action) -> None:
        match action:
            case Assign():
                await self._assign(action)
            case MarkProven(tenant, generation):
                await self._mark(tenant, generation, change.proven, "proven")
            case RollBack(tenant, generation):
                await self._roll_back(tenant, generation)
            case Purge(tenant, node, epoch):
                await self._purge(tenant, node, epoch)
            case FinishPurge(tenant, generation):
                with translated(tenant):
                    await self._vault.delete(tenant)
                await self._mark(tenant, generation, change.purge_done, "purged")
                self._events.emit("purged", f"nothing of {tenant} is left in the bucket", tenant=tenant)
            case Park(tenant, reason, message):
                self._world.note(tenant, reason, message)
            case _:
                assert_never(action)

    async def _assign(self, action: Assign) -> None:
        spec = self._spec(action.tenant, action.generation)
        assignment = await self._assignment(spec, action)
        agent = self._agent(action.node, action.tenant)
        async with self._slot(action.node):
            report = await agent.assign(assignment)
        self._world.mark_sent(action.tenant, self._sent(action))
        self._world.set_report(action.node, report)
        asyncio.get_running_loop().call_later(RESEND_S + 0.1, self._world.touch, action.tenant)

    def _sent(self, action: Assign) -> Sent:
        return Sent(action.node, action.session, action.generation, action.want, self._world.clock(), action.move)

    async def _assignment(self, spec: Spec, action: Assign) -> Assignment:
        up = action.want == "up"
        token = None
        if up and spec.spec.access == "token":
            token = await self._vault.access_token(spec.tenant, make=True)
        return Assignment(
            tenant=spec.tenant,
            generation=spec.generation,
            want=action.want,
            spec=spec.spec,
            previous=spec.previous if spec.previous != spec.spec else None,
            restarts=spec.restarts,
            restore=spec.restore,
            secrets=await self._vault.values(spec.tenant, spec.spec) if up else {},
            token_sha256=sha256_of(token) if token is not None else None,
            moving=self._moving(spec, action),
        )

    def _moving(self, spec: Spec, action: Assign) -> bool:
        """Whether the tenant leaves a node although it should be up, or comes to another than it was given up by."""
        if action.want == "up":
            seen = self._world.evidence(action.tenant)
            return seen.hold == "none" and seen.node not in (None, action.node)
        return action.want == "down" and spec.want == "up"

    async def _mark(self, tenant: str, generation: int, what: Callable[[Spec], Spec], kind: str) -> None:
        def decide(current: Spec | None) -> Spec | None:
            if current is None or current.generation != generation:
                raise Outdated
            return what(current)

        await self._desk.change(tenant, decide, kind)

    async def _roll_back(self, tenant: str, generation: int) -> None:
        report = self._world.evidence(tenant).report
        await self._mark(tenant, generation, lambda s: change.rolled_back(s, self._world.clock()), "rollback")
        text = f"generation {generation} of {tenant} did not get healthy: the spec before it is back"
        if report is not None and report.message:
            text = f"{text} ({report.message})"
        self._world.rollbacks[tenant] = text
        self._events.emit("rolled_back", text, tenant=tenant, generation=generation)

    async def _purge(self, tenant: str, node: str, epoch: int) -> None:
        agent = self._agent(node, tenant)
        async with self._slot(node):
            report = await agent.purge(tenant, epoch)
        if report.done:
            self._world.emptied[tenant] = epoch
        elif report.deleted == 0:
            raise Unavailable(f"node {node} could not delete anything of {tenant} yet", tenant=tenant)

    def _spec(self, tenant: str, generation: int) -> Spec:
        spec = self._world.specs.get(tenant)
        if spec is None or spec.generation != generation:
            raise Outdated
        return spec

    def _agent(self, node: str, tenant: str) -> Agent:
        try:
            return self._agents[node]
        except KeyError:
            raise NotFound(f"node {node} is not known any more", tenant=tenant) from None

    def _slot(self, node: str) -> asyncio.Semaphore:
        return self._slots.setdefault(node, asyncio.Semaphore(PER_NODE))
