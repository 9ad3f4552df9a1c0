"""The secrets that a machine makes for itself, kept in its state folder, and how settings reach its own processes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet
from pydantic import SecretStr

from node.settings import PREFIX, Settings

TOKEN_FILE = "token"  # noqa: S105 - a file's name
KEY_FILE = "secrets.key"


def kept(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """The secret in this file (mode 0600), made if there is none; and whether it was made now. Safe when two make it.

    Raises OSError where the folder cannot be written or the file not be read.
    """
    try:
        return path.read_text().strip(), False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, make().encode() + b"\n")
        os.fsync(fd)
        os.link(part, path)
        return path.read_text().strip(), True
    except FileExistsError:
        return path.read_text().strip(), False
    finally:
        os.close(fd)
        part.unlink()


def read_token(state_dir: Path) -> SecretStr | None:
    """The token that `fleet serve` made on this machine, None if there is none (or it is not ours to read)."""
    try:
        return SecretStr((state_dir / TOKEN_FILE).read_text().strip())
    except OSError:
        return None


def token(settings: Settings) -> Settings:
    """The settings with a token: the given ones, else the one kept in the state folder, made if need be."""
    if settings.token:
        return settings
    value, _ = kept(settings.state_dir / TOKEN_FILE, lambda: secrets.token_urlsafe(32))
    return settings.model_copy(update={"token": (SecretStr(value),)})


def secrets_key(settings: Settings) -> tuple[Settings, Path | None]:
    """The settings with a key for tenants' secrets, likewise; and its file if it was made just now: whoever loses it
    loses every secret in the bucket.
    """
    if settings.secrets_key is not None:
        return settings, None
    path = settings.state_dir / KEY_FILE
    value, made = kept(path, lambda: Fernet.generate_key().decode())
    return settings.model_copy(update={"secrets_key": SecretStr(value)}), path if made else None


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting as `FLEET_…`: how our own processes get them, never by argv."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name in Settings.model_fields:
        text = _text(getattr(settings, name))
        if text is not None:
            env[PREFIX + name.upper()] = text
    return env


def _text(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(filter(None, map(_text, value))) or None
        case dict():
            return ",".join(f"{k}={v}" for k, v in value.items()) or None
        case _:
            return str(value)
