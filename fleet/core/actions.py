"""What the controller does next: frozen values, carried out by one executor. Each is safe to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fleet.core.model import Move


@dataclass(frozen=True, slots=True)
class Assign:
    """Tell a node what to make true of a tenant: the spec of this generation, with this `want`.

    `want` is the spec's own, but `down` towards a node that the tenant must leave. `move` says which way it is, if that
    is why.
    """

    tenant: str
    node: str
    session: int
    generation: int
    want: Literal["up", "down", "purged"]
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class MarkProven:
    """Note in the spec that this generation got healthy: from now on it is what a bad change goes back to."""

    tenant: str
    generation: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """Make the last proven spec the wanted one again: the node gave this generation up and runs the old one."""

    tenant: str
    generation: int


@dataclass(frozen=True, slots=True)
class Purge:
    """Ask a node to delete what a tombstoned tenant has in the bucket, up to this epoch."""

    tenant: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class FinishPurge:
    """Nothing of the tenant's data is left: delete its secrets and note that the purge is done."""

    tenant: str
    generation: int


@dataclass(frozen=True, slots=True)
class Park:
    """No node can have the tenant now; says why. Nothing is done but to say so."""

    tenant: str
    reason: str
    message: str


Action: TypeAlias = Assign | MarkProven | RollBack | Purge | FinishPurge | Park
