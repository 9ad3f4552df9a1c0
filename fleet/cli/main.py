"""The group of all commands; each module is imported when one of its commands is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from fleet.cli.client import Client, find_target
from fleet.cli.errors import USAGE, CliError
from fleet.cli.output import show_json, talk
from fleet.cli.parse import duration

COMMANDS = {
    "serve": "machine",
    "node": "machine",
    "doctor": "machine",
    "up": "apply",
    "down": "apply",
    "restart": "apply",
    "ls": "look",
    "status": "look",
    "nodes": "machines",
    "cordon": "machines",
    "uncordon": "machines",
    "drain": "machines",
    "logs": "stream",
    "events": "stream",
    "points": "restore",
    "restore": "restore",
    "gc": "garbage",
    "run": "runs",
    "runs": "runs",
    "history": "runs",
    "signal": "runs",
    "cancel": "runs",
}


class _NobodyReads(Exception):
    """Standard output was closed by who reads it."""


@dataclass
class Context:
    """What every command works with. The client is made at its first use: `fleet --help` needs no controller.

    `words`: what was typed behind the program's name.
    """

    output: str = "table"
    quiet: bool = False
    debug: bool = False
    config: Path | None = None
    timeout_s: float = 60.0
    timeout_given: bool = False
    words: tuple[str, ...] = ()
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        """The controller's API."""
        if self._client is None:
            self._client = Client(find_target(self.config))
        return self._client

    def talk(self, text: str) -> None:
        """A line for a person, unless -q."""
        talk(text, quiet=self.quiet)


class Lazy(click.Group):
    """Finds a command's module by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, imported now."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"fleet.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader that has seen enough (`| head`) is no failure, which click would make of it."""
        try:
            value = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise _NobodyReads from None
        return value


def common(command: Any) -> Any:
    """The options that every command takes, wherever they are written."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is not None and value is not False:
            setattr(ctx.ensure_object(Context), str(param.name), value)
        return value

    def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            context = ctx.ensure_object(Context)
            context.timeout_s, context.timeout_given = duration(value), True

    options = [
        click.option(
            "-o", "--output", type=click.Choice(["table", "json", "name"]), expose_value=False, callback=keep,
            help="How data is printed.",
        ),
        click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=keep, help="No talk on stderr."),
        click.option("--debug", is_flag=True, expose_value=False, callback=keep, help="Show tracebacks."),
        click.option(
            "--timeout", expose_value=False, callback=seconds, metavar="60s", help="Without progress. [60s]"
        ),
        click.option(
            "--config", type=click.Path(path_type=Path), expose_value=False, callback=keep, help="A fleet.toml."
        ),
    ]  # fmt: skip
    for option in options:
        command = option(command)
    return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tenantry")
@common
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Tiny durable servers, one per tenant."""
    ctx.ensure_object(Context)


def run() -> None:
    """Run the command line; ends the process with its exit code."""
    context = Context(words=tuple(sys.argv[1:]))
    try:
        code = cli.main(context.words, obj=context, standalone_mode=False, prog_name="fleet")
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        talk("stopped; what was begun goes on, and every command can be repeated")
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()
        sys.exit(USAGE)
    except click.UsageError as e:
        where = e.ctx.command_path if e.ctx is not None else "fleet"
        _fail(context, CliError(f"{e.format_message().rstrip('.')}; '{where} --help' says what there is", USAGE))
    except click.ClickException as e:
        _fail(context, CliError(e.format_message(), USAGE))
    except CliError as e:
        if context.debug:
            raise
        _fail(context, e)
    except _NobodyReads:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere, without a word
        sys.exit(0)
    except Exception as e:
        if context.debug:
            raise
        _fail(context, CliError(f"unexpected: {type(e).__name__}: {e}; --debug shows where"))


def _fail(context: Context, error: CliError) -> None:
    talk(f"Error: {error}")
    if context.output == "json" or _asks_for_json(context.words):
        show_json(error.problem)
    sys.exit(error.code)


def _asks_for_json(words: tuple[str, ...]) -> bool:
    """Whether that is in the words, which may have been refused before they were all read."""
    apart = any(pair in (("-o", "json"), ("--output", "json")) for pair in pairwise(words))
    return apart or any(word in ("-ojson", "--output=json") for word in words)
