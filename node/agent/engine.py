"""What the guard must know of the engine: how it makes cgroups. Asked in a few lines of HTTP, without the SDK.

The answer is remembered for this boot: the guard must be able to freeze what an engine started that no longer answers.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from node.agent.runtime.cgroup import Cgroups

REMEMBERED = "cgroups.json"
DEFAULT = "unix:///var/run/docker.sock"
_TIMEOUT_S = 5.0


class _Unix(http.client.HTTPConnection):
    """HTTP over the engine's socket file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the file instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


def ask(address: str | None = None) -> Cgroups | None:
    """How the engine at `address` (None: `DOCKER_HOST`, else the usual socket) makes cgroups; None if it is silent."""
    url = urlsplit(address or os.environ.get("DOCKER_HOST") or DEFAULT)
    connection = _Unix(url.path) if url.scheme == "unix" else http.client.HTTPConnection(url.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/info")
        info: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return cgroups_of(info)


def cgroups_of(info: dict[str, Any]) -> Cgroups:
    """The engine's answer to `/info`, as far as it concerns cgroups. Engines before 20.10 name no version: it is 1."""
    return Cgroups(
        "systemd" if info.get("CgroupDriver") == "systemd" else "cgroupfs", int(info.get("CgroupVersion") or 1)
    )


def remember(runtime_dir: Path, found: Cgroups) -> None:
    """Keep an answer for this boot."""
    part = runtime_dir / f"{REMEMBERED}.part"
    part.write_text(json.dumps({"driver": found.driver, "version": found.version}))
    part.replace(runtime_dir / REMEMBERED)


def recall(runtime_dir: Path) -> Cgroups | None:
    """What was answered earlier in this boot."""
    try:
        raw = json.loads((runtime_dir / REMEMBERED).read_text())
        return Cgroups("systemd" if raw["driver"] == "systemd" else "cgroupfs", int(raw["version"]))
    except (OSError, ValueError, KeyError):
        return None
