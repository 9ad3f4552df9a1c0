"""The command that collects garbage: gc."""

from __future__ import annotations

from typing import Any

import click

from fleet.cli import select
from fleet.cli.client import tenant_path
from fleet.cli.errors import FAILED, CliError
from fleet.cli.main import Context, common
from fleet.cli.output import Column, show, size

ITEMS: tuple[Column, ...] = (
    ("TENANT", lambda v: v["tenant"] or "-"),
    ("NODE", lambda v: v["node"] or "-"),
    ("WHAT", lambda v: v["name"]),
    ("SIZE", lambda v: size(v["size_bytes"])),
    ("FATE", lambda v: v["fate"]),
    ("WHY", lambda v: v["message"]),
)


@click.command()
@select.several
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@common
@click.pass_obj
def gc(
    context: Context, /, tenants: tuple[str, ...], selector: tuple[str, ...], everything: bool, dry_run: bool
) -> None:
    """Delete what no restore needs any more.

    Dead epochs and volumes that were set aside, after the retention; with --all also apps that no tenant uses. It goes
    by itself as well, daily.
    """
    # Where no tenant is left there may be apps of those that were.
    found = select.names(context.client, tenants, selector, everything, none_will_do=everything)
    views = [
        context.client.call("POST", tenant_path(name, "gc"), query={"dry_run": "true" if dry_run else "false"})
        for name in found
    ]
    if everything:
        apps = context.client.call("POST", "/v1/gc", query={"dry_run": "true" if dry_run else "false"})
        # In the form of the others: it is nobody's, and no node has it.
        nodes = [{"node": None, **apps}]
        views.append({"tenant": None, "dry_run": dry_run, "owned": True, "silent": [], "nodes": nodes})
    if context.output == "json":
        show(views, context.output, ITEMS, name="tenant")
    else:
        show([row for view in views for row in _rows(view)], context.output, ITEMS, name="name")
    _tell(context, views, dry_run=dry_run)


def _rows(view: dict[str, Any]) -> list[dict[str, Any]]:
    kept, gone = "stays", "would go" if view["dry_run"] else "went"
    return [
        {**item, "tenant": view["tenant"], "node": report["node"], "fate": gone if item["goes"] else kept}
        for report in view["nodes"]
        for item in report["items"]
    ]


def _tell(context: Context, views: list[dict[str, Any]], *, dry_run: bool) -> None:
    items = [item for view in views for report in view["nodes"] for item in report["items"] if item["goes"]]
    verb = "would go" if dry_run else "went"
    total = size(sum(item["size_bytes"] for item in items))
    apps = sum(item["kind"] == "app" for item in items)
    tenants = sum(view["tenant"] is not None for view in views)
    also = f", {apps} unused apps" if apps else ""
    context.talk(f"{len(items) - apps} epochs and volumes of {tenants} tenants{also} {verb}: {total}")
    unowned = [view["tenant"] for view in views if not view["owned"]]
    if unowned:
        context.talk(f"no node has these settled, so their epochs stay: {', '.join(unowned)}")
    silent = sorted({node for view in views for node in view["silent"]})
    if silent:
        raise CliError(f"could not be asked: {', '.join(silent)}; repeat this when they answer", FAILED)
