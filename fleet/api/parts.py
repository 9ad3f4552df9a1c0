"""What the handlers work with; made once by the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request
from pydantic import SecretStr

from fleet.agents import Agent
from fleet.bucket import Bucket
from fleet.cordons import Cordoner
from fleet.desk import Desk
from fleet.errors import Unavailable
from fleet.events import Events
from fleet.leader import Leadership
from fleet.leases import Leases
from fleet.metrics import Metrics
from fleet.observe import Observer
from fleet.shelf import Shelf
from fleet.vault import Vault
from fleet.world import World


@dataclass(frozen=True)
class Parts:
    """`access`: what a spec without a choice gets; `uploads`: a folder for archives on their way, None the system's."""

    world: World
    desk: Desk
    shelf: Shelf
    vault: Vault
    bucket: Bucket
    events: Events
    metrics: Metrics
    observer: Observer
    leader: Leadership
    leases: Leases
    cordons: Cordoner
    agents: Mapping[str, Agent]
    access: str
    tokens: tuple[SecretStr, ...] = field(repr=False)
    readonly: tuple[SecretStr, ...] = field(repr=False, default=())
    uploads: Path | None = None

    def agent_of(self, node: str | None, tenant: str) -> Agent:
        """The agent that answers for a tenant: its node's, or any that is reachable. Raises Unavailable."""
        machines = self.world.machines
        if node is not None and node in self.agents and node in machines and machines[node].reachable:
            return self.agents[node]
        for name in sorted(machines):
            if machines[name].usable and name in self.agents:
                return self.agents[name]
        raise Unavailable(f"no node answers that could tell about {tenant}", tenant=tenant)


def parts(request: Request) -> Parts:
    """The parts, for a handler."""
    found: Parts = request.app.state.parts
    return found
