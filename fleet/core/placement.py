"""Where a tenant goes: a pure function of what it asks for and the room that each machine has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fleet.core.model import Machine
from node.bucket.spec import TenantSpec

# Tenants with the same value of this label are kept apart: in other zones, then on other machines.
SPREAD = "spread"
# The label of a machine that names its failure domain.
ZONE = "zone"
# A tenant's `cpus` is a limit, not a reservation: idle neighbours leave theirs to it.
CPU_OVERCOMMIT = 32.0


@dataclass(frozen=True, slots=True)
class Used:
    """What the tenants placed on a machine may use: bytes of memory, CPUs, how many they are; `apart` counts those of
    each value of the label that keeps them apart."""

    memory_bytes: int = 0
    cpus: float = 0.0
    tenants: int = 0
    apart: Mapping[str, int] = field(default_factory=dict)

    def plus(self, spec: TenantSpec) -> Used:
        """With one more tenant."""
        return self._with(spec, 1)

    def minus(self, spec: TenantSpec) -> Used:
        """With one tenant less."""
        return self._with(spec, -1)

    def _with(self, spec: TenantSpec, n: int) -> Used:
        apart, group = self.apart, spec.labels.get(SPREAD)
        if group is not None:
            apart = {**apart, group: apart.get(group, 0) + n}
        memory, cpus = self.memory_bytes + n * spec.limits.memory, self.cpus + n * spec.limits.cpus
        return Used(memory, cpus, self.tenants + n, apart)


@dataclass(frozen=True, slots=True)
class Placed:
    """The machine that was chosen."""

    node: str


@dataclass(frozen=True, slots=True)
class NoPlace:
    """None can have it: `reason` is a token, `message` a sentence that says what would fit."""

    reason: str
    message: str


def place(
    spec: TenantSpec,
    machines: Mapping[str, Machine],
    used: Mapping[str, Used],
    prefer: str | None,
) -> Placed | NoPlace:
    """Choose a machine. `prefer` is the one that may still hold the tenant's volume: taken if there is room.

    Otherwise one away from those that it is to be kept apart from, in the zone with the largest share of free memory,
    and there on the machine with the largest; with the fewest tenants and by name where that is equal.
    """
    if spec.node is not None:
        return _pinned(spec, spec.node, machines, used)
    usable = [m for m in machines.values() if m.usable]
    if not usable:
        return NoPlace("no_node", _no_node(machines))
    fitting = [m for m in usable if _fits(spec, m, used.get(m.name, Used()))]
    if not fitting:
        return NoPlace("no_room", _no_room(spec, usable, used))
    for machine in fitting:
        if machine.name == prefer:
            return Placed(machine.name)
    zones = _zones(usable, used)
    group = spec.labels.get(SPREAD)

    def cost(machine: Machine) -> tuple[int, int, float, float, int, str]:
        zone, here = zones[_zone(machine)], used.get(machine.name, Used())
        near = (zone.apart.get(group, 0), here.apart.get(group, 0)) if group is not None else (0, 0)
        share = _share(here.memory_bytes, machine.capacity.memory_bytes)
        return *near, _share(zone.used_bytes, zone.memory_bytes), share, here.tenants, machine.name

    return Placed(min(fitting, key=cost).name)


@dataclass(slots=True)
class _Zone:
    """A failure domain: what its machines have, and what is used there."""

    memory_bytes: int = 0
    used_bytes: int = 0
    apart: dict[str, int] = field(default_factory=dict)


def _zone(machine: Machine) -> str:
    return machine.labels.get(ZONE, "")


def _zones(machines: Iterable[Machine], used: Mapping[str, Used]) -> dict[str, _Zone]:
    zones: dict[str, _Zone] = {}
    for machine in machines:
        zone, here = zones.setdefault(_zone(machine), _Zone()), used.get(machine.name, Used())
        zone.memory_bytes += machine.capacity.memory_bytes
        zone.used_bytes += here.memory_bytes
        for group, count in here.apart.items():
            zone.apart[group] = zone.apart.get(group, 0) + count
    return zones


def _pinned(spec: TenantSpec, name: str, machines: Mapping[str, Machine], used: Mapping[str, Used]) -> Placed | NoPlace:
    machine = machines.get(name)
    if machine is None:
        return NoPlace(
            "no_node", f"its spec asks for node {name}, which this fleet does not know: start it or change node"
        )
    if not machine.usable:
        return NoPlace("no_node", f"its spec asks for node {name}, which {_why_not(machine)}")
    if not _fits(spec, machine, used.get(name, Used())):
        return NoPlace("no_room", _no_room(spec, [machine], used))
    return Placed(name)


def _fits(spec: TenantSpec, machine: Machine, used: Used) -> bool:
    capacity = machine.capacity
    return (
        used.memory_bytes + spec.limits.memory <= capacity.memory_bytes
        and used.cpus + spec.limits.cpus <= capacity.cpus * CPU_OVERCOMMIT
        and spec.limits.disk <= capacity.disk_bytes
    )


def _share(used: int, total: int) -> float:
    return used / total if total else 1.0


def _why_not(machine: Machine) -> str:
    if machine.state != "active":
        return f"is {machine.state}"
    if not machine.reachable:
        return "does not answer"
    if machine.fenced:
        return "has lost the bucket"
    return "is drained" if machine.drain else "is cordoned"


def _no_node(machines: Mapping[str, Machine]) -> str:
    if not machines:
        return "no node has joined: run `fleet node` on a machine"
    return "no node can take it: " + _listed(f"{m.name} {_why_not(m)}" for m in machines.values())


def _no_room(spec: TenantSpec, machines: Iterable[Machine], used: Mapping[str, Used]) -> str:
    lefts = []
    for machine in machines:
        taken = used.get(machine.name, Used())
        memory = max(0, machine.capacity.memory_bytes - taken.memory_bytes) >> 20
        cpus = max(0.0, machine.capacity.cpus * CPU_OVERCOMMIT - taken.cpus)
        disk = machine.capacity.disk_bytes >> 20
        lefts.append(f"{machine.name} has {memory}m of memory, {cpus:g} cpus, {disk}m of disk")
    asks = f"{spec.limits.memory >> 20}m of memory, {spec.limits.cpus:g} cpus, {spec.limits.disk >> 20}m of disk"
    return f"no room for {asks}; what would fit: {_listed(lefts)}"


def _listed(items: Iterable[str]) -> str:
    found = sorted(items)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
