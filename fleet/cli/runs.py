"""Commands about a tenant's workflow runs, through its gateway: run, runs, history, signal, cancel."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.client import Client, Target, tenant_path
from fleet.cli.errors import FAILED, UNAVAILABLE, UNKNOWN, USAGE, CliError
from fleet.cli.look import again
from fleet.cli.main import Context, common
from fleet.cli.output import Column, show, show_json

LONG_POLL_S = 20.0

RUNS: tuple[Column, ...] = (
    ("ID", lambda r: r["id"]),
    ("WORKFLOW", lambda r: r["workflow"]),
    ("STATE", lambda r: r["state"]),
    ("CREATED", lambda r: r["created_at"]),
    ("UPDATED", lambda r: r["updated_at"]),
)
EVENTS: tuple[Column, ...] = (
    ("SEQ", lambda e: str(e["seq"])),
    ("AT", lambda e: e["at"]),
    ("KIND", lambda e: e["kind"]),
    ("BODY", lambda e: json.dumps(e["body"], sort_keys=True)[:160]),
)


def worker(context: Context, tenant: str) -> Client:
    """The tenant's own server. Raises CliError when it is not up."""
    view = context.client.call("GET", tenant_path(tenant))
    if not view["url"]:
        raise CliError(
            f"{tenant} is {view['state']}: it has no address; bring it up with 'fleet up {tenant}'", UNAVAILABLE
        )
    token = context.client.call("GET", tenant_path(tenant, "token"))["token"] if _asks(view) else ""
    return Client(Target(view["url"].rstrip("/"), token or "", context.client.target.ca))


def _asks(view: dict[str, Any]) -> bool:
    return bool(view["spec"]["access"] != "open")


def read_input(text: str) -> Any:
    """`JSON`, `@FILE` or `-`. Raises CliError when it is not JSON."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
    except OSError as e:
        raise CliError(f"--input: cannot read {text[1:]}: {e.strerror}", USAGE) from None
    try:
        return json.loads(text)
    except ValueError as e:
        raise CliError(f"not JSON: {e}", USAGE) from None


def path(run_id: str, *rest: str) -> str:
    """`/v1/runs/<id>/…`, quoted."""
    return "/".join(["/v1/runs", *(quote(part, safe="") for part in (run_id, *rest))])


@click.command()
@click.argument("tenant")
@click.argument("workflow")
@click.option("--input", "given", metavar="JSON|@FILE|-", default="null", help="The workflow's input.")
@click.option("--id", "run_id", metavar="ID", help="Start it once: the same id again is the same run.")
@click.option("--wait", is_flag=True, help="Wait for its result.")
@common
@click.pass_obj
def run(context: Context, /, tenant: str, workflow: str, given: str, run_id: str | None, wait: bool) -> None:
    """Start WORKFLOW on TENANT."""
    server = worker(context, tenant)
    body = {"workflow": workflow, "input": read_input(given)}
    if run_id is not None:
        body["id"] = run_id
    started = server.call("POST", "/v1/runs", body)
    if not wait:
        _started(context, started)
        return
    context.talk(f"run {started['id']}")
    # A run may take days on purpose: only who says how long is told that it did not go on.
    ended = _result(server, started["id"], tenant, context.timeout_s if context.timeout_given else None)
    if ended["state"] != "completed":
        raise CliError(
            f"{tenant}: run {ended['id']} is {ended['state']}: {json.dumps(ended.get('error'))}", FAILED, ended
        )
    show_json(ended if context.output == "json" else ended["result"])


def _started(context: Context, run: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(run)
    else:
        show([run], context.output, RUNS, name="id")


def _result(server: Client, run_id: str, tenant: str, timeout_s: float | None = None) -> dict[str, Any]:
    """Long poll until it has ended. One that goes on as new is followed; a worker that restarts is asked again.

    Raises CliError when its server stays away, and when it has not gone on for `timeout_s`, None for ever.
    """
    poll_s = LONG_POLL_S if timeout_s is None else min(LONG_POLL_S, timeout_s)
    missed, seen, moved_at = 0, (run_id, "", ""), time.monotonic()
    while True:
        try:
            view: dict[str, Any] = server.call(
                "GET", path(run_id, "result"), query={"wait": f"{poll_s:g}s"}, timeout_s=2 * LONG_POLL_S
            )
        except CliError as e:
            missed += 1
            if e.code not in (UNAVAILABLE, UNKNOWN) or missed > 10:
                raise CliError(f"{tenant}: run {run_id} goes on, but its result is not known: {e}", UNKNOWN) from None
            continue
        missed = 0
        if view["state"] == "continued" and view.get("continued_to"):
            run_id = view["continued_to"]
        elif view["state"] not in ("queued", "running"):
            return view
        now = (run_id, view["state"], view.get("updated_at", ""))
        if now != seen:
            seen, moved_at = now, time.monotonic()
        elif timeout_s is not None and time.monotonic() - moved_at >= timeout_s:
            raise CliError(
                f"{tenant}: run {run_id} has not gone on for {timeout_s:g} s, it is {view['state']}; nothing is lost: "
                f"wait for it again with the same --id, or see 'fleet history {tenant} {run_id}'",
                UNKNOWN,
            )


@click.command()
@click.argument("tenant")
@click.option("--state", metavar="STATE")
@click.option("-n", "--tail", type=click.IntRange(1, 1000), default=50, metavar="N", help="Only the newest N. [50]")
@click.option("--watch", is_flag=True, help="Again every second.")
@common
@click.pass_obj
def runs(context: Context, /, tenant: str, state: str | None, tail: int, watch: bool) -> None:
    """List TENANT's runs, newest first."""
    server = worker(context, tenant)

    def once() -> None:
        found = server.call("GET", "/v1/runs", query={"state": state, "limit": tail})["runs"]
        show(found, context.output, RUNS, name="id")

    again(watch, once)


@click.command()
@click.argument("tenant")
@click.argument("run_id", metavar="ID")
@common
@click.pass_obj
def history(context: Context, /, tenant: str, run_id: str) -> None:
    """Everything the log says about a run."""
    server, found, cursor = worker(context, tenant), list[dict[str, Any]](), None
    while True:
        page = server.call("GET", path(run_id, "history"), query={"cursor": cursor})
        found += page["events"]
        cursor = page.get("cursor")
        if cursor is None:
            break
    show(found, context.output, EVENTS, name="seq")


@click.command()
@click.argument("tenant")
@click.argument("run_id", metavar="ID")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", default="null")
@common
@click.pass_obj
def signal(context: Context, /, tenant: str, run_id: str, name: str, payload: str) -> None:
    """Send a signal to a run."""
    worker(context, tenant).call("POST", path(run_id, "signals", name), read_input(payload))
    context.talk(f"{tenant}: {name} sent to {run_id}")


@click.command()
@click.argument("tenant")
@click.argument("run_id", metavar="ID")
@common
@click.pass_obj
def cancel(context: Context, /, tenant: str, run_id: str) -> None:
    """Ask a run to stop."""
    worker(context, tenant).call("POST", path(run_id, "cancel"))
    context.talk(f"{tenant}: {run_id} is asked to stop")
