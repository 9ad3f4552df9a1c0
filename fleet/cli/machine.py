"""Commands of a machine itself: serve, node, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fleet.cli.errors import FAILED, USAGE, CliError
from fleet.cli.main import Context, common
from fleet.cli.output import show_json, talk


def settings_of(context: Context, **overrides: Any) -> Any:
    """The settings of this machine's processes. Raises CliError that names what is wrong."""
    from node.settings import SettingsError, load

    try:
        return load(context.config, **{k: v for k, v in overrides.items() if v is not None})
    except SettingsError as e:
        raise CliError(str(e), USAGE) from None


def _options(command: Any) -> Any:
    """What `serve` and `node` take."""
    state = "What is kept here. [/var/lib/fleet]"
    command = click.option("--insecure", is_flag=True, default=None, help="Listen beyond loopback without TLS.")(
        command
    )
    return click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help=state)(command)


def _run(program: str, context: Context, state_dir: Path | None, insecure: bool | None) -> None:
    from fleet import serve as programs

    try:
        getattr(programs, program)(settings_of(context, state_dir=state_dir, insecure=insecure))
    except programs.ServeError as e:
        raise CliError(str(e), FAILED) from None


@click.command()
@_options
@common
@click.pass_obj
def serve(context: Context, /, state_dir: Path | None, insecure: bool | None) -> None:
    """Run store, controller and node on this machine.

    The store only if no bucket is set (FLEET_BUCKET).
    """
    _run("serve", context, state_dir, insecure)


@click.command()
@_options
@common
@click.pass_obj
def node(context: Context, /, state_dir: Path | None, insecure: bool | None) -> None:
    """Run this machine as a node of the fleet.

    FLEET_BUCKET and FLEET_TOKEN say which fleet: there is nothing else to join.
    """
    _run("node", context, state_dir, insecure)


@click.command()
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR")
@common
@click.pass_obj
def doctor(context: Context, /, state_dir: Path | None) -> None:
    """Check this machine and the bucket.

    Each check says what is wrong and how to mend it.
    """
    from fleet.doctor import examine

    findings = examine(settings_of(context, state_dir=state_dir))
    if context.output == "json":
        show_json([f.as_dict() for f in findings])
    else:
        for f in findings:
            print(f"{'ok  ' if f.ok else 'BAD '} {f.name}: {f.detail}")
            if not f.ok and f.fix:
                print(f"     fix: {f.fix}")
    bad = [f.name for f in findings if not f.ok]
    if bad:
        talk(f"Error: {len(bad)} of {len(findings)} checks failed: {', '.join(bad)}")
        raise SystemExit(FAILED)  # the findings are the document: no second one follows them
