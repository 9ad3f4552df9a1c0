"""What the gateway is told by the settings, and where its files are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.agent.gateway.errors import GatewayMisconfigured
from node.settings import is_loopback

DOMAIN = re.compile(r"(?=.{1,190}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class Listening(Protocol):
    """What of the settings the gateway reads."""

    @property
    def gateway_listen(self) -> str: ...
    @property
    def domain(self) -> str | None: ...
    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...
    @property
    def insecure(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the gateway listens (`host:port`), by which domain it knows tenants, and its certificate and key.

    `hold_s`: how long requests wait for a planned restart. `per_tenant`: requests of one tenant at a time.
    """

    listen: str
    domain: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    hold_s: int = 20
    per_tenant: int = 2000
    max_connections: int = 8000

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS, and only that."""
        return self.tls_cert is not None


def from_settings(settings: Listening) -> GatewayConfig:
    """The gateway's configuration. Raises GatewayMisconfigured: beyond loopback without TLS, or a wrong domain."""
    port = settings.gateway_listen.rpartition(":")[2]
    if not is_loopback(settings.gateway_listen) and settings.tls_cert is None and not settings.insecure:
        raise GatewayMisconfigured(
            f"FLEET_GATEWAY_LISTEN={settings.gateway_listen} is beyond loopback: "
            "set FLEET_TLS_CERT and FLEET_TLS_KEY, or FLEET_INSECURE=true to serve it unencrypted"
        )
    if not 0 < int(port) < 65536:
        raise GatewayMisconfigured(f"FLEET_GATEWAY_LISTEN={settings.gateway_listen}: a port is 1 to 65535")
    domain = settings.domain.lower().strip(".") if settings.domain else None
    if domain is not None and not DOMAIN.fullmatch(domain):
        raise GatewayMisconfigured(f"FLEET_DOMAIN={settings.domain!r} is not a domain name")
    return GatewayConfig(settings.gateway_listen, domain, settings.tls_cert, settings.tls_key)


@dataclass(frozen=True, slots=True)
class Files:
    """The gateway's folder: what the agent writes, and below `run` the sockets that HAProxy makes."""

    folder: Path

    @property
    def config(self) -> Path:
        """haproxy.cfg"""
        return self.folder / "haproxy.cfg"

    @property
    def lua(self) -> Path:
        """The action that held requests wait in."""
        return self.folder / "hold.lua"

    @property
    def routes(self) -> Path:
        """The map of routes: written before HAProxy is told, read by it when it starts."""
        return self.folder / "routes.map"

    @property
    def applied(self) -> Path:
        """The digest of what HAProxy was last started or reloaded with."""
        return self.folder / "applied"

    @property
    def pem(self) -> Path:
        """Certificate and key in one file."""
        return self.folder / "tls.pem"

    @property
    def run(self) -> Path:
        """The only folder that HAProxy may write."""
        return self.folder / "run"

    @property
    def master(self) -> Path:
        """The master's socket: commands for all of its workers."""
        return self.run / "master.sock"
