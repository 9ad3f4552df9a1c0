"""The port behind which HAProxy runs: a container on the host's network, or in tests a plain process."""

from __future__ import annotations

from typing import Protocol


class GatewayProcess(Protocol):
    """One HAProxy in master-worker mode on a folder's configuration. Blocking; each call may be repeated.

    All may raise node.agent.ports.RuntimeFailed.
    """

    def start(self) -> None:
        """Start it, replacing one that ended; one that runs is left alone."""

    def stop(self) -> None:
        """Stop it at once; one that is gone is fine. Its routes stay in the folder."""

    def alive(self) -> bool:
        """Whether it runs."""

    def output(self) -> str:
        """The last of what it wrote, for an error's text."""
