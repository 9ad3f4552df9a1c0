"""What a tenant should be: the spec, as a user writes it and as `specs/<t>.json` keeps it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from node.bucket import keys

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.IGNORECASE)
_SCALE = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,62}){0,3}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_SUFFIXES = ("-wal", "-shm", "-journal")


def parse_size(value: object) -> int:
    """`128m`, `1g` or a number of bytes → bytes. Raises ValueError that shows what is accepted."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write one like 128m or 1g")
    return int(match[1]) * _SCALE[match[2].lower()]


def parse_duration(value: object) -> float:
    """`1s`, `5m`, `12h`, `7d`, `0` or a number of seconds → seconds. Raises ValueError that shows what is accepted."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if text == "0":
            return 0.0
        if match := _DURATION.fullmatch(text):
            return float(match[1]) * _SECONDS[match[2].lower()]
    raise ValueError(f"{value!r} is not a duration; write one like 1s, 5m, 12h or 7d")


def _db(value: str) -> str:
    if not _DB.fullmatch(value) or value.endswith(_SUFFIXES):
        raise ValueError(f"{value!r} is not a database file; give a path relative to /data, like app.db")
    return value


def _absolute(value: str) -> str:
    parts = value.split("/")
    if not value.startswith("/") or len(value) < 2 or any(p in ("", ".", "..") for p in parts[1:]) or "," in value:
        raise ValueError(f"{value!r} is not an absolute path without '..'")
    return value


def _health(value: str) -> str:
    if not value.startswith("/") or any(c <= " " or c > "~" for c in value):
        raise ValueError(f"{value!r} is not a URL path that starts with '/'")
    return value


def _one_of(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not pattern.fullmatch(name):
                raise ValueError(f"{name!r} is not {what}")
        return value

    return AfterValidator(check)


Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=int | str)]
Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=float | str)]
Database = Annotated[str, AfterValidator(_db)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class Limits(BaseModel):
    """What a tenant may use: bytes of memory and disk, CPUs, processes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory: Annotated[Size, Field(ge=16 << 20, le=1 << 40)] = 128 << 20
    cpus: Annotated[float, Field(gt=0, le=256)] = 0.5
    disk: Annotated[Size, Field(ge=16 << 20, le=1 << 50)] = 1 << 30
    pids: Annotated[int, Field(ge=16, le=32768)] = 128


class SecretRef(BaseModel):
    """Which version of a secret the tenant gets; the value is encrypted in `secrets/<t>/<name>.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[int, Field(ge=1)]


class TenantSpec(BaseModel):
    """What a user asks for. Either `app` (code for our worker, by SHA-256) or `image` (any server).

    Sizes are bytes, durations seconds; both are read from strings like `128m` and `7d` too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[str, Field(max_length=512, pattern=r"^[^\s-][^\s]*$")] | None = None
    app: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    databases: Annotated[tuple[Database, ...], Field(max_length=16)] = ()
    port: Annotated[int, Field(ge=1024, le=65535)] = 8080
    health: Annotated[str, Field(max_length=512), AfterValidator(_health)] = "/healthz"
    user: Annotated[int, Field(ge=1000, le=2_000_000_000)] | None = None
    writable: Annotated[tuple[AbsolutePath, ...], Field(max_length=16)] = ()
    command: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    limits: Limits = Limits()
    rpo: Annotated[Duration, Field(ge=0, le=3600)] = 1.0
    calls_durable: bool = False
    retention: Annotated[Duration, Field(ge=3600, le=10 * 365 * 86400)] = 7 * 86400.0
    env: Annotated[dict[str, str], Field(max_length=128), _one_of(_ENV, "an environment variable's name")] = {}
    secrets: Annotated[dict[str, SecretRef], Field(max_length=64)] = {}
    labels: Annotated[dict[str, str], Field(max_length=64), _one_of(_LABEL, "a label's name")] = {}
    egress: Literal["on", "off"] = "off"
    access: Literal["open", "token"] | None = None
    metrics: AbsolutePath | None = None
    node: Annotated[str, Field(max_length=63)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> TenantSpec:
        if (self.image is None) == (self.app is None):
            raise ValueError("give --app or --image: exactly one of app and image")
        if not self.databases:
            raise ValueError("databases: name at least one SQLite file under /data (--db FILE)")
        if len(set(self.databases)) != len(self.databases):
            raise ValueError("databases: a file is named twice")
        if self.image is not None and self.rpo == 0 and not self.calls_durable:
            raise ValueError(
                "rpo: 0 needs an image that calls POST /durable before it acknowledges; say so with calls_durable: "
                "true (--calls-durable)"
            )
        if 0 < self.rpo < 1:
            raise ValueError("rpo: 0, or 1s and more")
        if any(not _SECRET.fullmatch(name) for name in self.secrets):
            raise ValueError("secrets: a name is letters, digits, '_', '.', '-'")
        if self.node is not None and not keys.is_name(self.node):
            raise ValueError(f"node: {self.node!r} is not a node's name")
        if self.command and self.image is None:
            raise ValueError("command: only with image")
        return self
