"""Long polls of the agents: what happens on a node is known here a round trip later, without asking again and again."""

from __future__ import annotations

import asyncio
import random
import ssl

import structlog

from fleet.agents import Agent
from fleet.errors import FleetError
from fleet.events import Events
from fleet.world import World

WAIT_S = 25.0
FIRST_S = 0.2
LONGEST_S = 5.0

log = structlog.get_logger("fleet.poll")


class Pollers:
    """One client and one long poll for each node that has a lease and an agent's URL in it."""

    def __init__(self, world: World, events: Events, token: str, *, verify: ssl.SSLContext) -> None:
        self._world = world
        self._events = events
        self._token = token
        self._verify = verify
        self.agents: dict[str, Agent] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def sync(self) -> None:
        """Begin to talk to nodes that are new or have moved."""
        for node, lease in self._world.leases.items():
            known = self.agents.get(node)
            if known is not None and known.url == lease.url:
                continue
            task = self._tasks.pop(node, None)
            if task is not None:
                task.cancel()
            agent = Agent(node, lease.url, self._token, verify=self._verify)
            self.agents[node] = agent
            self._tasks[node] = asyncio.create_task(self._follow(agent), name=f"poll:{node}")

    async def close(self) -> None:
        """Stop talking."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for agent in self.agents.values():
            await agent.close()

    async def _follow(self, agent: Agent) -> None:
        version, failures, known = 0, 0, False
        while True:
            try:
                report = await agent.state(version, WAIT_S if known else 0.0)
            except FleetError as e:
                failures += 1
                version, known = 0, False
                self._lost(agent.node, str(e), failures)
                wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 10))
                await asyncio.sleep(wait_s * (0.5 + random.random() / 2))  # noqa: S311 - jitter, not a secret
                continue
            except Exception:
                log.exception("a poll failed", node=agent.node)
                await asyncio.sleep(LONGEST_S)
                continue
            if report.node != agent.node:
                self._lost(agent.node, f"at {agent.url} answers node {report.node}, not {agent.node}", 1)
                await asyncio.sleep(LONGEST_S)
                continue
            if not known:
                self._found(agent.node)
            failures, version, known = 0, report.version, True
            self._world.node_reported(report)

    def _lost(self, node: str, why: str, failures: int) -> None:
        # One failed poll may be an agent's restart: nothing is decided on it but that the node is asked again.
        known = node in self._world.unreachable
        self._world.node_unreachable(node, why)
        if not known and failures == 1:
            self._events.emit("node", why, node=node, reason="unreachable")

    def _found(self, node: str) -> None:
        self._events.emit("node", f"the agent of node {node} answers", node=node, reason="reachable")
