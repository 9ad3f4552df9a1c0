"""Where another node's gateway is, from the address that its lease gives."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from node.agent.gateway.errors import GatewayFailed
from node.agent.gateway.table import Peer, through


def locate(url: str) -> Peer | None:
    """The gateway at `http(s)://host[:port]`; None for what is none, or leads nowhere. Asks the resolver."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in ("http", "https") or not host:
            return None
        ip = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        peer = Peer(ip, port, host if parts.scheme == "https" else None)
        through(peer)
    except (ValueError, OSError, GatewayFailed):
        return None
    return peer
