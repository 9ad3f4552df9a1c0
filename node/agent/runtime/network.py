"""The two bridges that workers are on: one with a way out, one without. Their names and options are pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

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


def options(bridge: Bridge, fleet: str) -> dict[str, Any]:
    """What the engine is told to make of it. Containers on it can't reach each other (`enable_icc`)."""
    return {
        "name": bridge.name,
        "driver": "bridge",
        "internal": not bridge.egress,
        "check_duplicate": True,
        "labels": {FLEET: fleet},
        "options": {
            "com.docker.network.bridge.name": bridge.interface,
            "com.docker.network.bridge.enable_icc": "false",
        },
    }
