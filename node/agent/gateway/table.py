"""The routes as values: one entry a tenant, and the lines by which HAProxy's map holds them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from node.agent.gateway.errors import GatewayFailed

State = Literal["route", "hold", "unrouted", "via"]
STATES: tuple[State, ...] = ("route", "hold", "unrouted", "via")
NONE = "-"
LEAVING = "moving"
TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
REASON = re.compile(r"[a-z][a-z0-9_]{0,39}")
SHA256 = re.compile(r"[0-9a-f]{64}")
HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Entry:
    """What happens to one tenant's requests. `ip` and `port` say where `route` goes; `reason` is what a 503 says.

    `via` is another node's gateway at `ip` and `port`; there `reason` is the name in its certificate, NONE without TLS.
    """

    state: State
    ip: str = NONE
    port: int = 0
    token_sha256: str | None = None
    reason: str = NONE

    def value(self) -> str:
        """The map's value: fields that the configuration takes apart by position. No space, no semicolon."""
        return f"{self.state}|{self.ip}|{self.port}|{self.token_sha256 or NONE}|{self.reason}"


def routed(address: str, token_sha256: str | None) -> Entry:
    """An entry for `IP:port` (`[IP]:port` for IPv6). Raises GatewayFailed for what is no address or no SHA-256."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        raise GatewayFailed(f"{address!r} is not IP:port", retryable=False) from None
    if not 0 < number < 65536:
        raise GatewayFailed(f"{address!r}: a port is 1 to 65535", retryable=False)
    if token_sha256 is not None and not SHA256.fullmatch(token_sha256):
        raise GatewayFailed("a token's hash is 64 lower-case hexadecimal digits", retryable=False)
    return Entry("route", str(ip), number, token_sha256)


def held(before: Entry | None, *, leaving: bool = False) -> Entry:
    """Requests wait. The token stays: who may not enter does not wait either."""
    reason = LEAVING if leaving else "restarting"
    return Entry("hold", token_sha256=before.token_sha256 if before else None, reason=reason)


def is_free(entry: Entry | None) -> bool:
    """Whether another node may have the tenant, by what is said of it here: nothing of this node's own."""
    return entry is None or entry.state == "via" or (entry.state == "hold" and entry.reason == LEAVING)


def unrouted(reason: str) -> Entry:
    """Requests get 503 with `reason`, one token; what is none becomes `unavailable`."""
    return Entry("unrouted", reason=reason if REASON.fullmatch(reason) else "unavailable")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node's gateway. `name` is what its certificate must say; None: it speaks no TLS."""

    ip: str
    port: int
    name: str | None = None


def through(peer: Peer) -> Entry:
    """An entry for a tenant of another node. Raises GatewayFailed for what is no address or no host's name."""
    if peer.name is not None and not HOST.fullmatch(peer.name):
        raise GatewayFailed(f"{peer.name!r} is not a host's name", retryable=False)
    host = f"[{peer.ip}]" if ":" in peer.ip else peer.ip
    at = routed(f"{host}:{peer.port}", None)
    return Entry("via", at.ip, at.port, reason=peer.name or NONE)


def check_tenant(tenant: str) -> None:
    """Raises GatewayFailed unless it is a tenant's name: nothing else may become a line of the map or a command."""
    if not TENANT.fullmatch(tenant):
        raise GatewayFailed(f"{tenant!r} is not a tenant's name", retryable=False)


def parse(value: str) -> Entry | None:
    """The entry of a map's value; None for a value that this version does not know."""
    fields = value.split("|")
    if len(fields) != 5:
        return None
    name, ip, port, token, reason = fields
    for state in STATES:
        if name == state and port.isdigit():
            return Entry(state, ip, int(port), None if token == NONE else token, reason)
    return None


def render_map(entries: Mapping[str, Entry]) -> str:
    """The map file, sorted by tenant."""
    return "".join(f"{tenant} {entries[tenant].value()}\n" for tenant in sorted(entries))


def parse_map(lines: Iterable[str]) -> dict[str, Entry]:
    """Entries of a map file; lines that are no route are left out: their tenants are routed again by the agent."""
    found = {}
    for line in lines:
        tenant, _, value = line.strip().partition(" ")
        entry = parse(value)
        if entry is not None and TENANT.fullmatch(tenant):
            found[tenant] = entry
    return found


def with_route(entries: Mapping[str, Entry], tenant: str, entry: Entry) -> dict[str, Entry]:
    """Changes for a new route: the tenant's own, and whoever else was at that address is taken off it.

    An engine gives a dead container's address to the next one: an old route must not lead into another tenant.
    """
    changes = {tenant: entry}
    for other, there in entries.items():
        if other != tenant and there.state == "route" and (there.ip, there.port) == (entry.ip, entry.port):
            changes[other] = unrouted("moved")
    return changes
