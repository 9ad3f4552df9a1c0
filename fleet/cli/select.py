"""Several tenants at once: by name, by `-l key=value`, or `--all`."""

from __future__ import annotations

from typing import Any

import click

from fleet.cli.client import Client
from fleet.cli.errors import MISSING, USAGE, CliError
from fleet.cli.parse import pair


def several(command: Any) -> Any:
    """Arguments and options of a command that makes sense for several tenants."""
    command = click.option("--all", "everything", is_flag=True, help="Every tenant.")(command)
    command = click.option("-l", "--selector", multiple=True, metavar="K=V", help="Tenants with this label.")(command)
    return click.argument("tenants", nargs=-1, metavar="[TENANT]...")(command)


def every(client: Client, selector: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """All tenants, or those with all of these labels."""
    for text in selector:
        pair(text, "-l")
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.call("GET", "/v1/tenants", query={"label": selector or None, "limit": 500, "cursor": cursor})
        found += page["tenants"]
        cursor = page["cursor"]
        if cursor is None:
            return found


def names(
    client: Client, tenants: tuple[str, ...], selector: tuple[str, ...], everything: bool, *, none_will_do: bool = False
) -> list[str]:
    """The names that were meant. Raises CliError when nothing or two things were, or no tenant unless that will do."""
    if sum((bool(tenants), bool(selector), everything)) != 1:
        raise CliError("give names of tenants, -l key=value, or --all: one of them", USAGE)
    if tenants:
        return list(dict.fromkeys(tenants))
    found = [t["tenant"] for t in every(client, selector) if t["want"] != "purged"]
    if not found and not none_will_do:
        raise CliError("no tenant matches", MISSING)
    return found
