"""Commands about the past: points, restore."""

from __future__ import annotations

import secrets
import time
from typing import Any

import click

from fleet.cli.apply import confirm, end
from fleet.cli.client import tenant_path
from fleet.cli.look import again
from fleet.cli.main import Context, common
from fleet.cli.output import Column, moment, show
from fleet.cli.parse import moment as parse_moment

POINTS: tuple[Column, ...] = (
    ("AT", lambda p: moment(p["at"])),
    ("KIND", lambda p: p["kind"]),
    ("EPOCH", lambda p: str(p["epoch"])),
    ("FILES", lambda p: ", ".join(f"{name}@{int(txid, 16)}" for name, txid in sorted(p["files"].items()))),
)


@click.command()
@click.argument("tenant")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the newest N.")
@click.option("--watch", is_flag=True, help="Again every second.")
@common
@click.pass_obj
def points(context: Context, /, tenant: str, tail: int | None, watch: bool) -> None:
    """The moments TENANT can be restored to, oldest first."""

    def once() -> None:
        found = context.client.call("GET", tenant_path(tenant, "points"))["points"]
        if tail is not None:
            found = found[len(found) - min(tail, len(found)) :]
        rows = [{**p, "name": moment(p["at"])} for p in found]
        show(found if context.output == "json" else rows, context.output, POINTS, name="name")

    again(watch, once)


@click.command()
@click.argument("tenant")
@click.option("--at", metavar="TIME", help="RFC 3339, or 5m for five minutes ago; else the newest.")
@click.option("--as", "new", metavar="NEW", help="As a new tenant; TENANT is not touched.")
@click.option("--node", metavar="N")
@click.option("--accept-data-loss", is_flag=True, help="Come up with what there is, if that is less.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True)
@common
@click.pass_obj
def restore(
    context: Context, /, tenant: str, at: str | None, new: str | None, node: str | None, accept_data_loss: bool,
    yes: bool, no_wait: bool,
) -> None:  # fmt: skip
    """Restore TENANT, to now or to an earlier moment."""
    when = parse_moment(at, time.time()) if at else None
    if new is None:
        confirm(f"Replace the data of {tenant} by its state {'of ' + moment(when) if when else 'in the bucket'}?", yes)
    body: dict[str, Any] = {"id": secrets.token_hex(8), "at": when, "as": new, "node": node}
    body["accept_data_loss"] = accept_data_loss
    given = {k: v for k, v in body.items() if v is not None}
    end(context, [context.client.call("POST", tenant_path(tenant, "restore"), given)], no_wait)
