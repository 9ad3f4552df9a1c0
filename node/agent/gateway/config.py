"""What the gateway is told by the settings, and where its files are."""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

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
    def tls_ca(self) -> Path | None: ...
    @property
    def insecure(self) -> bool: ...
    @property
    def node(self) -> str: ...
    @property
    def token(self) -> tuple[SecretStr, ...]: ...


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the gateway listens (`host:port`), by which domain it knows tenants, and its certificate and key.

    `hold_s`: how long requests wait for a planned restart. `per_tenant`: requests of one tenant at a time.
    `peer_keys`: what gateways of one fleet know each other by, the first one is sent, all are accepted; without one
    requests are neither passed on to others nor taken from them. `tls_ca`: who vouches for other gateways'
    certificates; without it whoever the machine trusts.
    """

    listen: str
    domain: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    hold_s: int = 20
    per_tenant: int = 2000
    max_connections: int = 8000
    node: str = ""
    peer_keys: tuple[str, ...] = field(default=(), repr=False)
    tls_ca: Path | None = None

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS, and only that."""
        return self.tls_cert is not None

    @property
    def trust(self) -> Path | None:
        """The certificates that other gateways' are verified with, if there are any."""
        default = ssl.get_default_verify_paths().cafile
        return self.tls_ca or (Path(default) if default else None)


def peer_keys(tokens: tuple[SecretStr, ...]) -> tuple[str, ...]:
    """A key for the fleet's gateways from each of its tokens. Whoever sees one learns nothing of the token; it opens
    nothing, but whoever has it is believed about where a request came from."""
    return tuple(
        hmac.new(t.get_secret_value().encode(), b"a gateway of this fleet", hashlib.sha256).hexdigest() for t in tokens
    )


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
    return GatewayConfig(
        settings.gateway_listen,
        domain,
        settings.tls_cert,
        settings.tls_key,
        node=settings.node,
        peer_keys=peer_keys(settings.token),
        tls_ca=settings.tls_ca,
    )


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
        """The actions that requests wait in."""
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
    def ca(self) -> Path:
        """Who vouches for other gateways."""
        return self.folder / "ca.pem"

    @property
    def door(self) -> Path:
        """The agent's socket, for asking where a tenant is. Outside of `run`: HAProxy cannot replace it."""
        return self.folder / "door.sock"

    @property
    def run(self) -> Path:
        """The only folder that HAProxy may write."""
        return self.folder / "run"

    @property
    def master(self) -> Path:
        """The master's socket: commands for all of its workers."""
        return self.run / "master.sock"
