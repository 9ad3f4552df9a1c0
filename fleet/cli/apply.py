"""Commands that change what should be: up, down, restart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from fleet.cli import change, select
from fleet.cli.client import Client, tenant_path
from fleet.cli.errors import CONFLICT, USAGE, CliError, of_problem
from fleet.cli.follow import finished, judge, wait
from fleet.cli.main import Context, common
from fleet.cli.output import show_json, talk

# Most tenants are up within this; the answer then comes with the request, and nothing is polled.
FIRST_WAIT = "3s"
_SIZES = ("limits.memory", "limits.disk")


def _report(context: Context, views: list[dict[str, Any]]) -> None:
    if context.output == "json":
        show_json(views[0] if len(views) == 1 else views)
    elif context.output == "name":
        for view in views:
            print(view["tenant"])
    else:
        for view in views:
            print(f"{view['tenant']}  {view['state']}  {view['url'] or '-'}")


def end(context: Context, views: list[dict[str, Any]], no_wait: bool) -> None:
    """Follow operations that were begun, then print. Every one is followed before the first error is raised."""
    done, broken = [], None
    for view in views:
        try:
            if not no_wait:
                view = judge(view) if finished(view) else wait(context.client, view, context.timeout_s, context.quiet)
        except CliError as e:
            if broken is not None:
                talk(f"Error: {broken}")
            broken = e
            continue
        for warning in view["warnings"]:
            context.talk(f"{view['tenant']}: warning: {warning}")
        done.append(view)
    if done:
        _report(context, done)
    if broken is not None:
        raise broken


@click.command()
@click.argument("tenant")
@click.option(
    "--app", type=click.Path(path_type=Path), metavar="DIR", help="Code for the worker: a folder with app.py."
)
@click.option("--image", metavar="I", help="Any server's image.")
@click.option("-f", "--file", "source", metavar="SPEC.yaml|-", help="The whole spec; replaces the stored one.")
@click.option("--db", multiple=True, metavar="FILE", help="A SQLite file under /data; again for more.")
@click.option("--port", type=int, metavar="N", help="Where the server answers HTTP. [8080]")
@click.option("--health", metavar="PATH", help="Answers 2xx or 3xx when it is healthy. [/healthz]")
@click.option("--user", type=int, metavar="UID", help="Run as this uid; by default one of the tenant's own.")
@click.option("--writable", multiple=True, metavar="PATH", help="Scratch in memory, lost at a restart.")
@click.option("--rpo", metavar="1s|0", help="What may be lost with a machine; 0: nothing acknowledged. [1s]")
@click.option("--calls-durable", is_flag=True, default=None, help="The image asks /durable before it acknowledges.")
@click.option("--memory", metavar="128m")
@click.option("--cpus", type=float, metavar="0.5")
@click.option("--disk", metavar="1g")
@click.option("--env", multiple=True, metavar="K=V", help="K= takes it away.")
@click.option("--secret", multiple=True, metavar="NAME=@FILE", help="A file under /run/secrets of the worker.")
@click.option("--egress", type=click.Choice(["on", "off"]), help="Whether it may reach the internet. [off]")
@click.option("--access", type=click.Choice(["open", "token"]), help="Whether the gateway asks for its token.")
@click.option("--retention", metavar="7d", help="How far back it can be restored.")
@click.option("--label", multiple=True, metavar="K=V", help="K= takes it away.")
@click.option("--node", metavar="N", help="Only on this node.")
@click.option("--dry-run", is_flag=True, help="Print what would change, change nothing.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is up.")
@common
@click.argument("command", nargs=-1, metavar="[-- COMMAND...]")
@click.pass_obj
def up(
    context: Context, /, tenant: str, app: Path | None, source: str | None, secret: tuple[str, ...], dry_run: bool,
    no_wait: bool, **flags: Any,
) -> None:  # fmt: skip
    """Bring TENANT up, or change it.

    What is given changes the stored spec, the rest is kept.
    """
    given = change.Flags(**flags)
    if app is not None and given.image is not None:
        raise CliError("give --app or --image, not both", USAGE)
    if source is not None and (given.given() or app is not None):
        raise CliError("-f is the whole spec: it can't be mixed with flags that change one", USAGE)
    client = context.client
    stored, etag = _stored(client, tenant)
    if source is not None:
        wanted = change.read_spec(source)
        app = _folder_of(wanted, source)
    else:
        if stored is None and app is None and given.image is None:
            raise CliError(f"{tenant} is not known: give --app or --image", USAGE)
        wanted = change.merge(stored, given, None)
    if app is not None:
        wanted = change.with_log({**wanted, "app": _upload(context, app, send=not dry_run), "image": None})
    body = {"spec": wanted, "secrets": change.secret_values(secret)}
    headers = {"If-Match": etag} if etag else {}
    if dry_run:
        answer = client.call("PUT", tenant_path(tenant), body, query={"dry_run": "true"}, headers=headers)
        _changes(context, answer)
        return
    query = {} if no_wait else {"wait": FIRST_WAIT}
    view = client.call("PUT", tenant_path(tenant), body, query=query, headers=headers)
    # Of a new tenant what was asked for is news; its defaults are in `status` and in --dry-run.
    news = [c for c in view["changes"] if stored is not None or _asked(c["path"], wanted)]
    for line in _lines(news):
        context.talk(f"{tenant}: {line}")
    end(context, [view], no_wait)


def _stored(client: Client, tenant: str) -> tuple[dict[str, Any] | None, str | None]:
    """The stored spec and its ETag; None for a tenant that is not known, or is purged."""
    response = client.send("GET", tenant_path(tenant))
    etag = response.headers.get("ETag")
    data = json.loads(response.read() or b"{}")
    if response.status == 404:
        return None, None
    if response.status >= 400:
        raise of_problem(response.status, data)
    return (None, None) if data["want"] == "purged" else (data["spec"], etag)


def _folder_of(wanted: dict[str, Any], source: str) -> Path | None:
    """`app` of a spec file may be a folder beside it instead of a hash."""
    app = wanted.get("app")
    if not isinstance(app, str) or (len(app) == 64 and not set(app) - set("0123456789abcdef")):
        return None
    return (Path.cwd() if source == "-" else Path(source).parent) / app


def _upload(context: Context, folder: Path, *, send: bool) -> str:
    """Pack a folder, and send it unless this is only a trial; answers its SHA-256."""
    from fleet.cli.apppack import packed
    from fleet.cli.output import size

    with packed(folder) as app:
        context.talk(f"app {app.sha256[:12]}: {app.files} files, {size(app.size_bytes)}")
        if not send:
            return app.sha256
        with app.path.open("rb") as f:
            headers = {"Content-Type": "application/gzip", "Content-Length": str(app.size_bytes)}
            context.client.call("PUT", f"/v1/apps/{app.sha256}", f, headers=headers, timeout_s=600)
        return app.sha256


def _asked(path: str, wanted: dict[str, Any]) -> bool:
    """Whether a spec that is sent says something about this path."""
    first, _, rest = path.partition(".")
    within = wanted.get(first)
    return rest in within or rest.partition(".")[0] in within if isinstance(within, dict) else first in wanted


def _lines(changes: list[dict[str, Any]]) -> list[str]:
    def text(path: str, value: Any) -> str:
        if value is None:
            return "-"
        return _exactly(value) if path in _SIZES else json.dumps(value)

    return [f"{c['path']}: {text(c['path'], c.get('old'))} → {text(c['path'], c.get('new'))}" for c in changes]


def _exactly(size_bytes: int) -> str:
    """Bytes as they are written on the command line, never rounded: two that differ are shown as different."""
    for scale, unit in ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k")):
        if size_bytes % scale == 0:
            return f"{size_bytes // scale}{unit}"
    return str(size_bytes)


def _changes(context: Context, answer: dict[str, Any]) -> None:
    if context.output == "json":
        show_json(answer)
        return
    lines = _lines(answer["changes"])
    if answer["creates"]:
        context.talk(f"{answer['tenant']} would be created")
    elif answer["restarts"]:
        context.talk(f"{answer['tenant']} would restart")
    print("\n".join(lines) if lines else "no change")


@click.command()
@select.several
@click.option("--purge", is_flag=True, help="Delete its data as well, after 24 h.")
@click.option("--now", is_flag=True, help="With --purge: at once.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True)
@common
@click.pass_obj
def down(
    context: Context, /, tenants: tuple[str, ...], selector: tuple[str, ...], everything: bool, purge: bool, now: bool,
    yes: bool, no_wait: bool,
) -> None:  # fmt: skip
    """Stop tenants, their last byte confirmed in the bucket."""
    if now and not purge:
        raise CliError("--now goes with --purge", USAGE)
    found = select.names(context.client, tenants, selector, everything)
    if purge:
        when = "at once" if now else "after 24 h"
        confirm(f"Delete all data of {', '.join(found)} {when}?", yes)
    wait_for = {} if no_wait else {"wait": FIRST_WAIT if len(found) == 1 else "0s"}
    views = []
    for name in found:
        if purge:
            query = {"now": "true" if now else None, **wait_for}
            views.append(context.client.call("DELETE", tenant_path(name), query=query))
        else:
            views.append(context.client.call("POST", tenant_path(name, "stop"), query=wait_for))
    end(context, views, no_wait)


@click.command()
@select.several
@click.option("--no-wait", is_flag=True)
@common
@click.pass_obj
def restart(
    context: Context, /, tenants: tuple[str, ...], selector: tuple[str, ...], everything: bool, no_wait: bool
) -> None:
    """Restart tenants' servers; requests wait meanwhile."""
    found = select.names(context.client, tenants, selector, everything)
    query = {} if no_wait else {"wait": FIRST_WAIT if len(found) == 1 else "0s"}
    views = [context.client.call("POST", tenant_path(name, "restart"), query=query) for name in found]
    end(context, views, no_wait)


def confirm(question: str, yes: bool) -> None:
    """Ask, on a terminal. Raises CliError where nobody can answer or the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(f"{question} Nobody can be asked here: give -y", USAGE)
    if not click.confirm(question, err=True):
        raise CliError("not done", CONFLICT)
