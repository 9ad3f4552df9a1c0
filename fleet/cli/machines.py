"""Commands about other machines, through the controller: nodes, cordon, uncordon, drain."""

from __future__ import annotations

import sys
import time
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.client import Client
from fleet.cli.errors import FAILED, UNAVAILABLE, UNKNOWN, CliError
from fleet.cli.look import again
from fleet.cli.main import Context, common
from fleet.cli.output import Column, show, show_json, size, span, talk

POLL_S = 0.5
# Between two moves there may be a moment in which nobody is under way: this long it is no standstill.
STANDSTILL_S = 5.0


def _state(view: dict[str, Any]) -> str:
    return f"{view['state']} (cordoned)" if view["cordon"] == "cordoned" != view["state"] else str(view["state"])


NODES: tuple[Column, ...] = (
    ("NODE", lambda v: v["node"]),
    ("STATE", _state),
    ("ZONE", lambda v: v["zone"] or "-"),
    ("SESSION", lambda v: str(v["session"])),
    ("TENANTS", lambda v: str(v["tenants"])),
    ("MEMORY", lambda v: f"{size(v['memory_used_bytes'])}/{size(v['capacity']['memory_bytes'])}"),
    ("CPUS", lambda v: f"{v['cpus_used']:g}/{v['capacity']['cpus']:g}"),
    ("LEASE", lambda v: "-" if v["lease_age_s"] is None else span(v["lease_age_s"])),
    ("GATEWAY", lambda v: v["gateway_url"] or "-"),
    ("MESSAGE", lambda v: v["message"] or "-"),
)


def node_path(node: str, *rest: str) -> str:
    """`/v1/nodes/<n>/…`, each part quoted."""
    return "/".join(["/v1/nodes", quote(node, safe=""), *rest])


@click.command()
@click.option("--watch", is_flag=True, help="Again every second.")
@common
@click.pass_obj
def nodes(context: Context, /, watch: bool) -> None:
    """List machines."""
    again(watch, lambda: show(context.client.call("GET", "/v1/nodes")["nodes"], context.output, NODES, name="node"))


@click.command()
@click.argument("node")
@common
@click.pass_obj
def cordon(context: Context, /, node: str) -> None:
    """Give NODE no new tenant; those that it has stay."""
    _report(context, context.client.call("POST", node_path(node, "cordon")))


@click.command()
@click.argument("node")
@common
@click.pass_obj
def uncordon(context: Context, /, node: str) -> None:
    """Let NODE take tenants again; it ends a drain."""
    _report(context, context.client.call("POST", node_path(node, "uncordon")))


@click.command()
@click.argument("node")
@click.option("--at-once", type=click.IntRange(1, 64), metavar="N", default=2, help="Move so many at a time. [2]")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is empty.")
@common
@click.pass_obj
def drain(context: Context, /, node: str, at_once: int, no_wait: bool) -> None:
    """Move NODE's tenants to other machines.

    Each with its last byte confirmed; it takes no new ones meanwhile.
    """
    view = context.client.call("POST", node_path(node, "drain"), {"at_once": at_once})
    if not no_wait and view["leaving"]:
        follow = Follow(context.client, view, context.timeout_s, quiet=context.quiet)
        view = follow.run()
    _report(context, view)


class Follow:
    """A drain to its end, with progress: a bar on a terminal, a line for each tenant elsewhere."""

    def __init__(self, client: Client, view: dict[str, Any], timeout_s: float, *, quiet: bool) -> None:
        self._client = client
        self._view = view
        self._timeout_s = timeout_s
        self._quiet = quiet
        self._all = {one["tenant"] for one in view["leaving"]}
        self._last: dict[str, tuple[str, str]] = {}
        self._news_at = self._moving_at = time.monotonic()

    def run(self) -> dict[str, Any]:
        """The node once nothing is left there. Raises CliError when what is left can't go, or does not go on."""
        with _Bar(len(self._all), self._view["node"], self._quiet) as bar:
            while self._view["leaving"]:
                self._say(bar)
                self._check()
                time.sleep(POLL_S)
                self._view = self._look()
            self._say(bar)
        return self._view

    def _look(self) -> dict[str, Any]:
        """The node now; what it was, while the controller is away: it may be restarting."""
        try:
            found: dict[str, Any] = self._client.call("GET", node_path(self._view["node"]))
        except CliError as e:
            if e.code == UNAVAILABLE:
                return self._view
            raise
        if found["cordon"] != "draining":
            raise CliError(f"the drain of {found['node']} was ended by somebody else: it is {found['cordon']}", FAILED)
        return found

    def _say(self, bar: _Bar) -> None:
        left = {one["tenant"]: one for one in self._view["leaving"]}
        self._all |= left.keys()
        now = {name: (one["stage"], one["message"]) for name, one in left.items()}
        for name in sorted(self._last.keys() - now.keys()):
            bar.line(f"{name}: moved")
        for name, (stage, message) in now.items():
            if self._last.get(name) != (stage, message) and stage != "waiting":
                to = f" to {left[name]['to']}" if left[name]["to"] else ""
                bar.line(f"{name}: {stage}{to}" + (f", {message}" if message else ""))
        if now != self._last:
            self._news_at = time.monotonic()
        self._last = now
        bar.at(len(self._all) - len(left), len(self._all))

    def _check(self) -> None:
        """Raises CliError when nothing goes on any more."""
        view, now = self._view, time.monotonic()
        stuck = [one for one in view["leaving"] if one["stage"] == "stuck"]
        if any(one["stage"] == "moving" for one in view["leaving"]):
            self._moving_at = now
        elif stuck and now - self._moving_at > STANDSTILL_S:
            why = "; ".join(f"{one['tenant']}: {one['message'] or one['reason']}" for one in stuck[:5])
            more = f"; and {len(stuck) - 5} more" if len(stuck) > 5 else ""
            rest = (
                f", {len(view['leaving']) - len(stuck)} wait behind them" if len(view["leaving"]) > len(stuck) else ""
            )
            raise CliError(
                f"{view['node']} is not empty: {len(stuck)} can't go{rest}: {why}{more}. They stay where they are; "
                f"mend that and repeat the command, or end the drain with 'fleet uncordon {view['node']}'",
                FAILED,
                _problem(view, "stuck"),
            )
        if now - self._news_at > self._timeout_s:
            raise CliError(
                f"{view['node']}: no progress for {self._timeout_s:g} s, {len(view['leaving'])} tenants are left; the "
                f"drain goes on by itself: look with 'fleet nodes', or repeat the command",
                UNKNOWN,
                _problem(view, "outcome_unknown"),
            )


class _Bar:
    """Progress on stderr: rich's bar on a terminal, lines elsewhere."""

    def __init__(self, total: int, node: str, quiet: bool) -> None:
        self._quiet = quiet
        self._progress: Any = None
        if sys.stderr.isatty() and not quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("drain {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._task = self._progress.add_task(node, total=total)

    def line(self, text: str) -> None:
        """What happened to one tenant."""
        if self._progress is None:
            talk(text, quiet=self._quiet)
        else:
            self._progress.console.print(text, highlight=False, markup=False)

    def at(self, done: int, total: int) -> None:
        """How far it is."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)

    def __enter__(self) -> _Bar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _problem(view: dict[str, Any], kind: str) -> dict[str, Any]:
    left = [one["tenant"] for one in view["leaving"]]
    detail = f"{view['node']} is not drained"
    return {"type": f"urn:fleet:{kind}", "title": kind, "detail": detail, "node": view["node"], "tenants": left,
            "retryable": kind == "outcome_unknown"}  # fmt: skip


def _report(context: Context, view: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(view)
    elif context.output == "name":
        print(view["node"])
    else:
        print(f"{view['node']}  {view['state']}  {view['tenants']} tenants")
