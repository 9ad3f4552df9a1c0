"""Commands that stream: logs, events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from fleet.cli.client import tenant_path
from fleet.cli.errors import CliError
from fleet.cli.main import Context, common
from fleet.cli.output import moment, talk
from fleet.cli.parse import moment as parse_moment

RECONNECT_S = 1.0


@click.command()
@click.argument("tenant")
@click.option("--sidecar", is_flag=True, help="Of its Litestream instead.")
@click.option("-f", "--follow", is_flag=True)
@click.option("--since", metavar="5m|TIME")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@common
@click.pass_obj
def logs(context: Context, /, tenant: str, sidecar: bool, follow: bool, since: str | None, tail: int | None) -> None:
    """What a tenant's server logged."""
    query = {
        "container": "sidecar" if sidecar else "worker",
        "follow": "true" if follow else None,
        "since": parse_moment(since, time.time()) if since else None,
        "tail": tail,
    }
    for line in context.client.lines(tenant_path(tenant, "logs"), query=query):
        print(line, flush=follow)


@click.command()
@click.argument("tenant", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
@click.option("--since", metavar="5m|TIME")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N.")
@common
@click.pass_obj
def events(context: Context, /, tenant: str | None, follow: bool, since: str | None, tail: int | None) -> None:
    """What happened lately, to one tenant or to all."""
    start = parse_moment(since, time.time()) if since else 0.0
    query = {"tenant": tenant, "follow": "true" if follow else "false"}
    last: dict[str, str] = {}
    kept: list[dict[str, Any]] = []
    while True:
        try:
            for event in _events(context, query, last):
                if event["at"] < start or (tenant and event.get("tenant") not in (tenant, None)):
                    continue
                if follow and tail is None:
                    _print(context, event)
                else:
                    kept.append(event)
        except CliError as e:
            if not follow:
                raise
            talk(f"{e}; resuming", quiet=context.quiet)
        if not follow:
            break
        time.sleep(RECONNECT_S)
    for event in kept if tail is None else kept[len(kept) - min(tail, len(kept)) :]:
        _print(context, event)


def _events(context: Context, query: dict[str, Any], last: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Events of the stream; `last` keeps where to resume."""
    headers = {"Accept": "text/event-stream", **last}
    for line in context.client.lines("/v1/events", query=query, headers=headers):
        if line.startswith("id:"):
            last["Last-Event-ID"] = line[3:].strip()
        elif line.startswith("data:"):
            yield json.loads(line[5:])


def _print(context: Context, event: dict[str, Any]) -> None:
    if context.output == "json":
        print(json.dumps(event, sort_keys=True), flush=True)
    else:
        who = event.get("tenant") or event.get("node") or "-"
        state = f" {event['state']}" if event.get("state") else ""
        print(f"{moment(event['at'])}  {who}  {event['kind']}{state}  {event['message']}".rstrip(), flush=True)
