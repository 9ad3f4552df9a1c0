"""Every setting, prefix `FLEET_`, or a `fleet.toml`; the environment wins. An unknown key is refused by name."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "FLEET_"
DEFAULT_STATE = Path("/var/lib/fleet")


class SettingsError(Exception):
    """A setting is wrong: the message names it and says what is accepted."""


def _tokens(value: object) -> object:
    return [v for v in re.split(r"[,\s]+", value) if v] if isinstance(value, str) else value


def _labels(value: object) -> object:
    if isinstance(value, str):
        return dict(item.split("=", 1) for item in value.split(",") if "=" in item)
    return value


def _host_port(value: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-f:]+\]|[^:\s]+):\d{1,5}", value):
        raise ValueError(f"{value!r} is not HOST:PORT")
    return value


HostPort = Annotated[str, AfterValidator(_host_port)]
Tokens = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_tokens)]


def is_loopback(host_port: str) -> bool:
    """Whether this is an address of the machine itself only."""
    host = host_port.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """What controller, agent, guard and command line read. Paths absolute, times in seconds.

    `bucket` None means the embedded store (`fleet serve` sets it for the processes that it starts); `store_port` is
    that store's S3 port, the nine above it are its inner ones.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    bucket: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?$")] | None = None
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    controller: str = "http://127.0.0.1:7070"
    controller_listen: HostPort = "127.0.0.1:7070"
    agent_listen: HostPort = "127.0.0.1:7081"
    agent_url: str | None = None
    gateway_listen: HostPort = "127.0.0.1:7080"
    gateway_url: str | None = None
    domain: str | None = None
    node: str = Field(default_factory=lambda: re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower()).strip("-")[:63])
    labels: Annotated[dict[str, str], NoDecode, BeforeValidator(_labels)] = {}
    token: Tokens = ()
    token_readonly: Tokens = ()
    secrets_key: SecretStr | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    insecure: bool = False
    mode: Literal["solo", "shared"] = "shared"
    state_dir: Path = DEFAULT_STATE
    run_dir: Path | None = None
    store_port: Annotated[int, Field(ge=1, le=65526)] = 7090
    image_prefix: str = "fleet"
    memory_bytes: int | None = None
    cpus: float | None = None
    disk_bytes: int | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        return self

    @property
    def runtime_dir(self) -> Path:
        """Folder on tmpfs that ends with the boot: session, sockets, secrets. One per state folder."""
        if self.run_dir is not None:
            return self.run_dir
        if self.state_dir == DEFAULT_STATE:
            return Path("/run/fleet")
        return Path(f"/run/fleet-{hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:8]}")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what `load` read from the file."""
        return env_settings, init_settings


def load(config: Path | None = None, **overrides: Any) -> Settings:
    """Settings from `config` (a TOML file), then the environment, then `overrides`. Raises SettingsError."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text())
        except OSError as e:
            raise SettingsError(f"cannot read the settings file {config}: {e.strerror}") from None
        except tomllib.TOMLDecodeError as e:
            raise SettingsError(f"the settings file {config} is not TOML: {e}") from None
    known = set(Settings.model_fields)
    unknown = sorted(k for k in values if k not in known)
    unknown += sorted(k for k in os.environ if k.startswith(PREFIX) and k[len(PREFIX) :].lower() not in known)
    if unknown:
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        settings = Settings(**values)
        return Settings.model_validate({**settings.model_dump(), **overrides}) if overrides else settings
    except ValueError as e:
        first: Any = e.errors()[0] if isinstance(e, ValidationError) else {"loc": (), "msg": str(e)}
        name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else "settings"
        raise SettingsError(f"{name}: {first['msg']}") from None
