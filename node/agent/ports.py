"""The ports of the agent's app: values that custody, runtime and gateway share. No engine's type, id or error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Role = Literal["worker", "sidecar", "job"]


@dataclass(frozen=True, slots=True)
class Volume:
    """A tenant's folders on this node. `data` is the only one that the tenant can write; `marker` is root's alone."""

    data: Path
    meta: Path
    run: Path
    marker: Path


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker container. `app` is a folder mounted read-only at /app; `secrets` a tmpfs folder at /run/secrets."""

    tenant: str
    epoch: int
    session: int
    generation: int
    image: str
    uid: int
    volume: Volume
    port: int
    memory_bytes: int
    cpus: float
    pids: int
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    app: Path | None = None
    secrets: Path | None = None
    egress: bool = False


@dataclass(frozen=True, slots=True)
class SidecarSpec:
    """A Litestream container. `config` is a tmpfs folder (mode 0500, the tenant's uid) mounted at /etc/litestream that
    holds `litestream.yml` with the credentials; `data` is at /data, `meta` at /meta, the control socket /meta/ls.sock.
    """

    tenant: str
    epoch: int
    session: int
    uid: int
    volume: Volume
    config: Path
    memory_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A one-off Litestream command in the sidecar's image and with its mounts, such as `restore`; runs to its end."""

    tenant: str
    epoch: int
    session: int
    uid: int
    volume: Volume
    config: Path
    args: tuple[str, ...]
    memory_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended: its exit code (None: killed at the timeout) and the last of its output."""

    exit_code: int | None
    output: str


@dataclass(frozen=True, slots=True)
class Container:
    """One of our containers as found. `address` is the IP on the workers' bridge, empty when it does not run.

    `instance` tells it from an earlier one of the same name; opaque.
    """

    name: str
    tenant: str
    role: Role
    epoch: int
    session: int
    generation: int
    running: bool
    address: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    instance: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container used: bytes of memory now, CPU seconds in all."""

    memory_bytes: int
    cpu_s: float


class RuntimeFailed(Exception):
    """The engine could not do it. `reason` is a token such as no_image, no_engine, disk_full, bad_request;
    `retryable` says whether trying again later may help."""

    def __init__(self, message: str, *, reason: str, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class Runtime(Protocol):
    """Runs containers. Blocking calls, safe from many threads; each may be repeated. All raise RuntimeFailed."""

    def ensure(self) -> None:
        """Networks, firewall, cgroup parent: made or mended, idempotent."""

    def create(self, spec: WorkerSpec | SidecarSpec) -> str:
        """Create a container, replacing a stopped one of the same tenant and role; answers its name."""

    def start(self, name: str) -> Container:
        """Start a created container; one that runs already is fine."""

    def allow(self, container: Container, cpus: float) -> None:
        """Let a running container compute with so many processors from now on; one that is gone is fine."""

    def stop(self, name: str, timeout_s: float) -> None:
        """SIGTERM, wait, SIGKILL; one that is gone is fine."""

    def kill(self, name: str) -> None:
        """SIGKILL at once, also when it is frozen; one that is gone is fine."""

    def remove(self, name: str) -> None:
        """Remove a container, killing it if need be; one that is gone is fine."""

    def run_job(self, spec: JobSpec, timeout_s: float, progress: Callable[[str], None] | None = None) -> JobResult:
        """Run a job to its end and remove it."""

    def containers(self) -> list[Container]:
        """All containers of this fleet on this node."""

    def logs(self, name: str, *, tail: int | None, since: float | None, follow: bool) -> Iterator[bytes]:
        """Lines with RFC 3339 timestamps; ends with the container when following."""

    def deaths(self) -> Iterator[Container]:
        """Blocks and yields each of our containers as it ends. Ends when the engine goes away: call again."""

    def usage(self, name: str) -> Usage | None:
        """None when it does not run."""

    def image_exists(self, image: str) -> bool:
        """Whether the engine has this image."""


@dataclass(frozen=True, slots=True)
class AsideVolume:
    """A volume that was set aside: whose, where, when (unix time by this machine's clock), and what it occupies."""

    tenant: str
    path: Path
    at: float
    size_bytes: int


class Volumes(Protocol):
    """Tenants' folders with their disk allowances. Blocking; raise RuntimeFailed (reason disk_full, no_quota, ...)."""

    def ensure(self, tenant: str, uid: int, disk_bytes: int) -> Volume:
        """The tenant's volume, made empty if there is none; owners, modes and allowance are mended."""

    def find(self, tenant: str) -> Volume | None:
        """The tenant's volume if there is one."""

    def set_aside(self, tenant: str, label: str) -> Path:
        """Move the whole volume out of the way (never wiped): `<state>/aside/<t>-<label>-<n>`; answers where to."""

    def aside(self) -> list[AsideVolume]:
        """Every volume that was set aside and is still there, oldest first."""

    def drop_aside(self, path: Path) -> None:
        """Delete a volume that was set aside; one that is gone is fine."""

    def stopped(self, tenant: str) -> bool:
        """Whether its disk has stopped writing after an error, and there is room again for it to begin anew."""

    def discard(self, tenant: str) -> None:
        """Delete the volume of a tenant whose last byte is confirmed and released, or whose purge is due."""

    def used_bytes(self, tenant: str) -> int:
        """What the tenant's `data` occupies."""

    def tenants(self) -> list[str]:
        """Every tenant with a volume here."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a tenant answers: `address` IP:port. `token_sha256` is hex, None for open access."""

    address: str
    token_sha256: str | None = None


class Gateway(Protocol):
    """Routes by tenant name. Blocking, safe from many threads, idempotent; survives a restart of either side."""

    def ensure(self) -> None:
        """The gateway runs with the routes known here; restarted and filled again if it died."""

    def route(self, tenant: str, route: Route) -> None:
        """Requests go there from now on; those that were held go on."""

    def hold(self, tenant: str, *, leaving: bool = False) -> None:
        """Requests wait (bounded, 20 s) for the next `route`: a planned restart; `leaving`: a planned move."""

    def unroute(self, tenant: str, reason: str) -> None:
        """Requests get 503 with Retry-After and the reason (a state such as `restoring`)."""

    def forget(self, tenant: str) -> None:
        """Requests get 404: no such tenant here."""

    def in_flight(self, tenant: str) -> int:
        """Requests that are being answered right now."""


@dataclass(frozen=True, slots=True)
class Freezer:
    """The cgroup parent of every tenant's containers: what the guard freezes, thaws and kills without the engine.

    `group` is its folder (v1: under the freezer hierarchy), `file` takes `freeze` or `thaw`. Need not exist yet.
    """

    group: Path
    file: Path
    freeze: bytes
    thaw: bytes
    v2: bool
