"""Commands that look: ls, status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from fleet.cli import select
from fleet.cli.client import tenant_path
from fleet.cli.main import Context, common
from fleet.cli.output import Column, ago, moment, show, show_json, size, span

WATCH_S = 1.0


def _state(view: dict[str, Any]) -> str:
    return f"{view['state']} (behind)" if view["behind"] else str(view["state"])


def _lag(view: dict[str, Any]) -> str:
    return "-" if view["lag_s"] is None else f"{view['lag_s']:.1f}s"


TENANTS: tuple[Column, ...] = (
    ("TENANT", lambda v: v["tenant"]),
    ("STATE", _state),
    ("NODE", lambda v: v["node"] or "-"),
    ("EPOCH", lambda v: str(v["epoch"] or "-")),
    ("LAG", _lag),
    ("SINCE", lambda v: ago(v["since"])),
    ("URL", lambda v: v["url"] or "-"),
)


def again(watch: bool, once: Callable[[], None]) -> None:
    """Print once, or again and again until it is interrupted."""
    once()
    while watch:
        time.sleep(WATCH_S)
        click.clear()
        once()


@click.command()
@click.option("-l", "--selector", multiple=True, metavar="K=V", help="Tenants with this label.")
@click.option("--all", "everything", is_flag=True, help="Purged ones too.")
@click.option("--watch", is_flag=True, help="Again every second.")
@common
@click.pass_obj
def ls(context: Context, /, selector: tuple[str, ...], everything: bool, watch: bool) -> None:
    """List tenants."""

    def once() -> None:
        found = select.every(context.client, selector)
        show((v for v in found if everything or v["state"] != "purged"), context.output, TENANTS)

    again(watch, once)


@click.command()
@click.argument("tenant")
@click.option("--token", is_flag=True, help="Only its access token.")
@click.option("--watch", is_flag=True, help="Again every second.")
@common
@click.pass_obj
def status(context: Context, /, tenant: str, token: bool, watch: bool) -> None:
    """Everything about one tenant."""
    if token:
        print(context.client.call("GET", tenant_path(tenant, "token"))["token"] or "")
        return

    def once() -> None:
        view = context.client.call("GET", tenant_path(tenant))
        if context.output == "json":
            show_json(view)
        elif context.output == "name":
            print(view["tenant"])
        else:
            _paragraph(view)

    again(watch, once)


def _paragraph(view: dict[str, Any]) -> None:
    spec = view["spec"]
    rows = [
        ("tenant", view["tenant"]),
        ("state", f"{_state(view)} since {ago(view['since'])}" + (f" ({view['reason']})" if view["reason"] else "")),
        ("message", view["message"]),
        ("url", view["url"] or "-"),
        ("wanted", f"{view['want']}, generation {view['generation']} (carried out: {view['observed_generation']})"),
        ("node", f"{view['node'] or '-'}, epoch {view['epoch']}, data epoch {view['data_epoch']}"),
        ("serves", f"app {spec['app'][:12]}" if spec["app"] else f"image {spec['image']}"),
        ("databases", ", ".join(spec["databases"])),
        ("rpo", "0" if spec["rpo"] == 0 else span(spec["rpo"])),
        ("replication", f"lag {_lag(view)}, last confirmed {moment(view['last_confirmed'])}"),
        ("limits", f"memory {size(spec['limits']['memory'])}, {spec['limits']['cpus']:g} CPUs"),
        ("disk", size(spec["limits"]["disk"])),
        ("last walk", ", ".join(f"{p['name']} {p['duration_s']:.2f}s" for p in view["phases"])),
        ("purge after", moment(view["purge_after"]) if view["purge_after"] else ""),
        *(("warning", w) for w in view["warnings"]),
    ]  # fmt: skip
    for name, value in rows:
        if value:
            print(f"{name:<12} {value}")
