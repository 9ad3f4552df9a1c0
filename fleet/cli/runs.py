"""Commands about a tenant's workflow runs, through its gateway: run, runs, history, signal, cancel."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.client import Client, Target, tenant_path
from fleet.cli.errors import UNAVAILABLE, UNKNOWN, USAGE, CliError
from fleet.cli.look import again
from fleet.cli.main import Context, common
from fleet.cli.output import Column, show, show_json

LONG_POLL_S = 20.0
# A server that moves to another machine is away for half a minute.
MISSES = 12
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
# Whoever answers sooner has not waited for the end of the run.
HELD_S = 1.0

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
    url, hint = view["url"].rstrip("/"), f"'fleet status {tenant}' says how it is, and where"
    ca = context.client.target.ca
    return Client(Target(url, token or "", ca, f"the server of {tenant}", hint, repeatable=False))


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


def new_id() -> str:
    """An id of a run or a signal that nobody has: what is sent again with it is the same, not another."""
    return os.urandom(10).hex()


def with_option(words: Sequence[str], name: str, value: str) -> str:
    """The command line that was typed, with an option more, for a shell."""
    at = list(words).index("--") if "--" in words else len(words)
    return shlex.join(["fleet", *words[:at], name, value, *words[at:]])


@contextmanager
def repeated_by(context: Context, command: str) -> Iterator[None]:
    """Where the answer is lost, or nobody waits for it any more, say what asks for the same again and not for more."""
    try:
        yield
    except KeyboardInterrupt:
        context.talk(f"what was asked for may go on; to ask for the same again: {command}")
        raise
    except CliError as e:
        if e.code not in (UNAVAILABLE, UNKNOWN):
            raise
        text = f"{str(e).rstrip('.')}; to ask for the same again: {command}"
        raise CliError(text, e.code, {**e.problem, "detail": text}) from None


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
    command = shlex.join(["fleet", *context.words])
    if run_id is None:
        run_id = new_id()
        command = with_option(context.words, "--id", run_id)
    body = {"workflow": workflow, "input": read_input(given), "id": run_id}
    with repeated_by(context, command):
        started = server.call("POST", "/v1/runs", body)
        if not wait:
            _started(context, started)
            return
        context.talk(f"run {started['id']}")
        # A run may take days on purpose: only who says how long is told that it did not go on.
        ended = _result(server, started["id"], tenant, context.timeout_s if context.timeout_given else None)
    if ended["state"] != "completed":
        raise _ended_badly(tenant, ended)
    show_json(ended if context.output == "json" else ended["result"])


def _ended_badly(tenant: str, run: dict[str, Any]) -> CliError:
    error = CliError(
        f"{tenant}: run {run['id']} is {run['state']}: {json.dumps(run.get('error'))}; "
        f"'fleet history {tenant} {run['id']}' shows how it came to that"
    )
    error.problem |= {"tenant": tenant, "run": run}
    return error


def _started(context: Context, run: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(run)
    else:
        show([run], context.output, RUNS, name="id")


def _pause_s(nth: int) -> float:
    """How long to wait before the same is asked again, after it was in vain so often."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (nth - 1))


def _result(
    server: Client,
    run_id: str,
    tenant: str,
    timeout_s: float | None = None,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Long poll until it has ended. One that goes on as new is followed; a worker that restarts is asked again.

    Raises CliError when its server stays away, and when it has not gone on for `timeout_s`, None for ever.
    """
    poll_s = LONG_POLL_S if timeout_s is None else min(LONG_POLL_S, timeout_s)
    missed, early, seen, moved_at = 0, 0, (run_id, "", ""), time.monotonic()
    while True:
        asked_at = time.monotonic()
        try:
            view: dict[str, Any] = server.call(
                "GET", path(run_id, "result"), query={"wait": f"{poll_s:g}s"}, timeout_s=2 * LONG_POLL_S
            )
        except CliError as e:
            missed += 1
            over = timeout_s is not None and time.monotonic() - moved_at >= timeout_s
            if not _passing(e) or over or missed > MISSES:
                raise CliError(f"{tenant}: run {run_id} goes on, but its result is not known: {e}", UNKNOWN) from None
            pause(_pause_s(missed))
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
                f"see 'fleet history {tenant} {run_id}'",
                UNKNOWN,
            )
        # A server that stops answers at once.
        held = view["state"] == "continued" or time.monotonic() - asked_at >= HELD_S
        early = 0 if held else early + 1
        if early:
            pause(_pause_s(early))


def _passing(error: CliError) -> bool:
    """Whether it may be better in a moment."""
    return error.code in (UNAVAILABLE, UNKNOWN) or bool(error.problem.get("retryable"))


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
@click.option("--signal-id", metavar="SID", help="Send it once: the same signal id again is the same signal.")
@common
@click.pass_obj
def signal(context: Context, /, tenant: str, run_id: str, name: str, payload: str, signal_id: str | None) -> None:
    """Send a signal to a run."""
    server, body = worker(context, tenant), read_input(payload)
    command = shlex.join(["fleet", *context.words])
    if signal_id is None:
        signal_id = new_id()
        command = with_option(context.words, "--signal-id", signal_id)
    with repeated_by(context, command):
        server.call("POST", path(run_id, "signals", name), body, query={"signal_id": signal_id})
    context.talk(f"{tenant}: {name} sent to {run_id}")


@click.command()
@click.argument("tenant")
@click.argument("run_id", metavar="ID")
@common
@click.pass_obj
def cancel(context: Context, /, tenant: str, run_id: str) -> None:
    """Ask a run to stop."""
    server = worker(context, tenant)
    with repeated_by(context, shlex.join(["fleet", *context.words])):
        server.call("POST", path(run_id, "cancel"))
    context.talk(f"{tenant}: {run_id} is asked to stop")
