"""Every key in the bucket, relative to the fleet's prefix, and back from a key to what it names."""

from __future__ import annotations

import re

FLEET = "fleet.json"
LEADER = "controllers/leader.json"
CORDONS = "controllers/cordons.json"
INDEX = "controllers/index.json.gz"
UNUSED = "controllers/unused.json"
NODES = "nodes/"
SPECS = "specs/"
OWNERS = "owners/"
APPS = "apps/"

_APP = re.compile(r"apps/([0-9a-f]{64})\.tar\.gz")
TENANT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_name(name: str) -> bool:
    """Whether this is a DNS label: what tenants and nodes are called."""
    return TENANT_NAME.fullmatch(name) is not None


def node(name: str) -> str:
    """The lease of a machine."""
    return f"{NODES}{name}.json"


def spec(tenant: str) -> str:
    """What a tenant should be."""
    return f"{SPECS}{tenant}.json"


def owner(tenant: str) -> str:
    """Who holds a tenant."""
    return f"{OWNERS}{tenant}.json"


def lineage(tenant: str, epoch: int) -> str:
    """Where an epoch's data came from; sorts by epoch."""
    return f"{lineages(tenant)}{epoch:08x}.json"


def lineages(tenant: str) -> str:
    """Prefix of a tenant's lineage records."""
    return f"lineage/{tenant}/"


def secret(tenant: str, name: str) -> str:
    """An encrypted secret of a tenant."""
    return f"secrets/{tenant}/{name}.json"


def app(sha256: str) -> str:
    """App code with its locked dependencies, by content."""
    return f"{APPS}{sha256}.tar.gz"


def app_of(key: str) -> str | None:
    """The SHA-256 that an app's key names, None for another key."""
    found = _APP.fullmatch(key)
    return found[1] if found else None


def tenant_data(tenant: str) -> str:
    """Prefix of everything a tenant ever replicated."""
    return f"data/{tenant}/"


def epoch_data(tenant: str, epoch: int) -> str:
    """Prefix of one epoch's replicas."""
    return f"data/{tenant}/e{epoch:08x}/"


def database(tenant: str, epoch: int, db: str) -> str:
    """Replica of one database file: what Litestream gets as its path, without a trailing slash."""
    return f"data/{tenant}/e{epoch:08x}/{db}"


def name_of(key: str) -> str:
    """`specs/acme.json` → `acme`: the last part without its ending."""
    return key.rsplit("/", 1)[-1].removesuffix(".json")
