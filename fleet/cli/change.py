"""From flags or a spec file to the spec that is sent. Pure, but for reading the file that is named."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.cli.errors import USAGE, CliError
from fleet.cli.parse import pair

LOG_DATABASE = "workflow.db"


@dataclass(frozen=True, slots=True)
class Flags:
    """What was given on the command line; None or empty keeps what the stored spec has."""

    image: str | None = None
    db: tuple[str, ...] = ()
    port: int | None = None
    health: str | None = None
    user: int | None = None
    writable: tuple[str, ...] = ()
    rpo: str | None = None
    memory: str | None = None
    cpus: float | None = None
    disk: str | None = None
    env: tuple[str, ...] = ()
    egress: str | None = None
    access: str | None = None
    retention: str | None = None
    label: tuple[str, ...] = ()
    node: str | None = None
    command: tuple[str, ...] = ()
    calls_durable: bool | None = None

    def given(self) -> bool:
        """Whether any flag was given."""
        return self != Flags()


def merge(stored: dict[str, Any] | None, flags: Flags, app: str | None) -> dict[str, Any]:
    """The stored spec with what was given changed. `app` is the SHA-256 of an uploaded app."""
    spec = dict(stored or {})
    if app is not None:
        spec.update(app=app, image=None)
    if flags.image is not None:
        spec.update(image=flags.image, app=None)
    for name in ("port", "health", "user", "rpo", "egress", "access", "retention", "node", "calls_durable"):
        if (value := getattr(flags, name)) is not None:
            spec[name] = value
    if flags.db:
        spec["databases"] = list(flags.db)
    if flags.writable:
        spec["writable"] = list(flags.writable)
    if flags.command:
        spec["command"] = list(flags.command)
    limits = {k: v for k in ("memory", "cpus", "disk") if (v := getattr(flags, k)) is not None}
    if limits:
        spec["limits"] = {**spec.get("limits", {}), **limits}
    for name, values, option in (("env", flags.env, "--env"), ("labels", flags.label, "--label")):
        if values:
            spec[name] = _pairs(dict(spec.get(name, {})), values, option)
    return with_log(spec)


def with_log(spec: dict[str, Any]) -> dict[str, Any]:
    """Our worker keeps its log in a file of its own: it is always among the databases."""
    databases = list(spec.get("databases") or ())
    if spec.get("app") and LOG_DATABASE not in databases:
        spec["databases"] = [LOG_DATABASE, *databases]
    return spec


def _pairs(into: dict[str, str], values: tuple[str, ...], option: str) -> dict[str, str]:
    """`K=V` sets, `K=` takes away."""
    for text in values:
        key, value = pair(text, option)
        if value:
            into[key] = value
        else:
            into.pop(key, None)
    return into


def read_spec(source: str) -> dict[str, Any]:
    """A spec file (YAML or JSON), or `-` for standard input."""
    import yaml

    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except OSError as e:
        raise CliError(f"-f: cannot read {source}: {e.strerror}", USAGE) from None
    except UnicodeDecodeError:
        raise CliError(f"-f: {source} is not text", USAGE) from None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise CliError(f"-f: {source} is not YAML: {e}", USAGE) from None
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise CliError(f"-f: {source} is not a spec: a mapping of names to values is needed", USAGE)
    if (odd := _not_json(value, "")) is not None:
        raise CliError(f"-f: {source}: {odd}", USAGE)
    return value


def _not_json(value: Any, path: str) -> str | None:
    """What YAML can say and JSON can't, by its path; None if there is nothing."""
    if isinstance(value, dict):
        for key, inner in value.items():
            where = f"{path}.{key}".strip(".")
            if not isinstance(key, str):
                return f"{where}: the name {key!r} is not text; quote it"
            if (odd := _not_json(inner, where)) is not None:
                return odd
        return None
    if isinstance(value, list):
        found = (_not_json(inner, f"{path}.{n}") for n, inner in enumerate(value))
        return next((odd for odd in found if odd is not None), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: {value} is not a number that can be sent"
    if value is not None and not isinstance(value, str | int | float | bool):
        return f"{path}: {value} is a {type(value).__name__}; quote it if text is meant"
    return None


def secret_values(options: tuple[str, ...]) -> dict[str, str]:
    """`NAME=@FILE` → the file's content; a value on the command line would be in every process list."""
    values = {}
    for text in options:
        name, value = pair(text, "--secret")
        if not value.startswith("@"):
            raise CliError(f"--secret {name}: give a file, as {name}=@FILE (or =@- for standard input)", USAGE)
        try:
            values[name] = sys.stdin.read() if value == "@-" else Path(value[1:]).read_text()
        except (OSError, UnicodeDecodeError) as e:
            raise CliError(f"--secret {name}: cannot read {value[1:]}: {e}", USAGE) from None
    return values
