"""The two bridges that workers are on: one with a way out, one without. Names, options and addresses are pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from node.agent.ports import RuntimeFailed

FLEET = "fleet.name"


@dataclass(frozen=True, slots=True)
class Bridge:
    """One network: its name for the engine, its interface on this host (at most 15 bytes), whether it leads out."""

    name: str
    interface: str
    egress: bool


@dataclass(frozen=True, slots=True)
class Bridges:
    """Both networks of a fleet on a node."""

    open: Bridge
    closed: Bridge


def bridges(fleet: str) -> Bridges:
    """Named after the fleet, so that two fleets on one engine do not meet."""
    short = hashlib.sha256(fleet.encode()).hexdigest()[:8]
    return Bridges(
        Bridge(f"{fleet}-open", f"fl{short}o", egress=True), Bridge(f"{fleet}-closed", f"fl{short}c", egress=False)
    )


def options(bridge: Bridge, fleet: str, subnet: str) -> dict[str, Any]:
    """What the engine is told to make of it. Containers on it can't reach each other (`enable_icc`).

    An engine gives out addresses by choice only of a range that it was told.
    """
    return {
        "name": bridge.name,
        "driver": "bridge",
        "internal": not bridge.egress,
        "check_duplicate": True,
        "labels": {FLEET: fleet},
        "ipam": {"Driver": "default", "Config": [{"Subnet": subnet}]},
        "options": {
            "com.docker.network.bridge.name": bridge.interface,
            "com.docker.network.bridge.enable_icc": "false",
        },
    }


def probe(bridge: Bridge, fleet: str) -> dict[str, Any]:
    """A network that is only made to be told a range that nothing on this machine uses."""
    name = f"{bridge.name}-probe"
    return {"name": name, "driver": "bridge", "internal": True, "check_duplicate": True, "labels": {FLEET: fleet}}


def address(subnet: str, tenant: str, taken: Collection[str]) -> str:
    """The tenant's address in a range: by its name, and the next free one if that is `taken`.

    An engine would give a dead container's address to the next one at once, whose requests a stale route or a
    connection that is still being opened would then lead into another tenant. `taken`: whatever containers have, dead
    ones that are not removed yet among them. Raises RuntimeFailed (no_address).
    """
    net = ipaddress.ip_network(subnet)
    hosts = net.num_addresses - 3  # not the network's own, its gateway's and the broadcast address
    first = int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8]) % hosts
    for n in range(hosts):
        candidate = str(net[2 + (first + n) % hosts])
        if candidate not in taken:
            return candidate
    raise RuntimeFailed(f"{subnet} has no address left for {tenant}", reason="no_address", retryable=True)
