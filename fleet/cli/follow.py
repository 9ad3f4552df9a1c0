"""Waiting for what takes time, with progress: a line that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from fleet.cli.client import Client, tenant_path
from fleet.cli.errors import FAILED, MISSING, UNAVAILABLE, UNKNOWN, CliError
from fleet.cli.output import talk

POLL_S = 0.3
BROKEN = {"failed", "lost", "damaged"}
DONE = {"up": {"running"}, "down": {"released", "hibernated"}, "purged": {"purged"}}


class Progress:
    """Says what changed, on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._last = ""
        self._terminal = sys.stderr.isatty()

    def say(self, view: dict[str, Any]) -> bool:
        """Show a tenant's state; answers whether it is news."""
        text = f"{view['tenant']}: {view['state']}"
        if view.get("progress") is not None:
            text += f" {view['progress']:.0%}"
        if view.get("message"):
            text += f", {view['message'].splitlines()[0]}"
        news = text != self._last
        self._last = text
        if news and not self._quiet:
            print(f"\r\x1b[K{text}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr)
            sys.stderr.flush()
        return news

    def end(self) -> None:
        """Leave the line that changes."""
        if self._terminal and self._last and not self._quiet:
            talk("")


def finished(view: dict[str, Any]) -> bool:
    """Whether the operation that `generation` stands for has come to its end, good or bad."""
    if view["observed_generation"] < view["generation"]:
        return False  # what is shown is how the one before ended
    return view["state"] in DONE[view["want"]] or view["state"] in BROKEN


def wait(client: Client, view: dict[str, Any], timeout_s: float, quiet: bool) -> dict[str, Any]:
    """Follow a tenant to the end of its operation. Raises CliError: failed, or unknown without progress for so long."""
    progress = Progress(quiet)
    news_at = time.monotonic()
    try:
        while not finished(view):
            if progress.say(view):
                news_at = time.monotonic()
            if time.monotonic() - news_at > timeout_s:
                raise CliError(
                    f"{view['tenant']}: no progress for {timeout_s:g} s, it is {view['state']}"
                    f"{': ' + view['message'] if view['message'] else ''}; it goes on by itself, "
                    f"look with 'fleet status {view['tenant']}', or repeat the command",
                    UNKNOWN,
                    _problem(view, "outcome_unknown"),
                )
            time.sleep(POLL_S)
            view = _look(client, view)
    finally:
        progress.end()
    return judge(view)


def _look(client: Client, view: dict[str, Any]) -> dict[str, Any]:
    """The tenant now; what it was, while the controller is away: it may be restarting. One that is gone was purged."""
    try:
        found: dict[str, Any] = client.call("GET", tenant_path(view["tenant"]))
    except CliError as e:
        if e.code == MISSING and view["want"] == "purged":
            return {**view, "state": "purged", "observed_generation": view["generation"]}
        if e.code == UNAVAILABLE:
            return view
        raise
    return found


def judge(view: dict[str, Any]) -> dict[str, Any]:
    """The view of an operation that ended well. Raises CliError for one that did not."""
    if view["state"] in BROKEN:
        raise CliError(f"{view['tenant']} is {view['state']}: {view['message']}", FAILED, _problem(view, view["state"]))
    if view.get("rolled_back"):
        raise CliError(f"{view['tenant']}: {view['message']}", FAILED, _problem(view, "rolled_back"))
    return view


def _problem(view: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "type": f"urn:fleet:{kind}",
        "title": kind,
        "detail": view["message"],
        "tenant": view["tenant"],
        "retryable": kind == "outcome_unknown",
    }
