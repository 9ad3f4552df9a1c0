"""Frozen wire values between controller and agent. The agent's HTTP API, all but health with a bearer token:

PUT  /v1/tenants/{t}            Assignment → TenantReport (202); level-triggered: the same one again changes nothing
GET  /v1/state?version=N&wait=S NodeReport; waits until its version is past N
GET  /v1/tenants/{t}/points     Points
GET  /v1/tenants/{t}/logs       text lines; ?container=worker|sidecar&follow&since&tail
POST /v1/purge/{t}              PurgeRequest → PurgeReport; deletes a purged tenant's data in the bucket
POST /v1/gc/{t}                 GarbageRequest → GarbageReport; deletes what no restore of a retained moment needs
GET  /healthz /metrics
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from node.bucket.records import Capacity, Restore
from node.bucket.spec import TenantSpec

TenantState = Literal[
    "pending", "claiming", "restoring", "starting", "running", "frozen", "stopping", "released", "hibernated",
    "failed", "lost", "damaged", "purged",
]  # fmt: skip


FENCES: Mapping[str, str] = {
    "store_unreachable": "it could not renew its lease in the bucket in time",
    "lease_lost": "its lease carries somebody else's write, who ended its session",
    "agent_hung": "its agent does not answer",
    "guard_paused": "it stood still for longer than its lease, or its guard did",
}
"""Why a machine has frozen its tenants: `NodeReport.reason`, and what it says of the machine."""


class Wire(BaseModel):
    """Base: frozen; an unknown field is ignored, so that a newer peer can be spoken to."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Assignment(Wire):
    """What the agent should make true of a tenant. `secrets` are plain values: they go to tmpfs files only.

    `token_sha256` is the hash of the bearer token that the gateway asks for, None for open access.
    `moving`: the tenant goes from one node to another, and its requests wait meanwhile instead of being refused.
    `start_empty` is never set by default: it is the operator's accepted loss for a tenant whose data is lost.
    """

    tenant: str
    generation: Annotated[int, Field(ge=1)]
    want: Literal["up", "down", "purged"]
    spec: TenantSpec
    previous: TenantSpec | None = None
    restarts: int = 0
    restore: Restore | None = None
    secrets: dict[str, str] = Field(default={}, repr=False)
    token_sha256: str | None = None
    moving: bool = False


class Phase(Wire):
    """One finished part of an operation, e.g. `claim`, `restore`, `snapshot`, `worker`; seconds."""

    name: str
    duration_s: float
    size_bytes: int | None = None


class TenantReport(Wire):
    """A tenant as its node sees it. Times are unix seconds, `lag_s` is None while unknown.

    `observed_generation` is the last generation carried out or given up; `reason` one token; `message` a sentence.
    `warnings` are sentences about a tenant that is up (a declared database did not appear, an old SQLite, ...).
    """

    tenant: str
    state: TenantState
    reason: str = ""
    message: str = ""
    epoch: int = 0
    data_epoch: int = 0
    observed_generation: int = 0
    restarts: int = 0
    since: float = 0.0
    behind: bool = False
    lag_s: float | None = None
    last_confirmed: float | None = None
    progress: float | None = None
    phases: tuple[Phase, ...] = ()
    warnings: tuple[str, ...] = ()
    restore_id: str | None = None
    rolled_back: bool = False
    address: str = ""


class NodeReport(Wire):
    """A machine as its agent sees it. `version` grows with every change of the report. `reason` is one of FENCES while
    `fenced`, or what it does before its tenants run: `starting`, `settling`."""

    node: str
    session: int
    version: int
    fenced: bool = False
    reason: str = ""
    capacity: Capacity
    gateway_url: str
    tenants: tuple[TenantReport, ...]


class Point(Wire):
    """A moment that a tenant can be restored to. `files` are txids."""

    at: float
    epoch: int
    kind: Literal["snapshot", "change", "cut"]
    files: dict[str, str]


class Points(Wire):
    """Oldest first; `first` and `last` bound what `--at` accepts."""

    tenant: str
    points: tuple[Point, ...]


class PurgeRequest(Wire):
    """Delete a tombstoned tenant's data; refused unless the owner record says purged at this epoch."""

    epoch: int


class PurgeReport(Wire):
    """How many objects went; `done` when none is left."""

    deleted: int
    done: bool


class GarbageRequest(Wire):
    """`dry_run`: say what would go, and delete nothing."""

    dry_run: bool = False


class GarbageItem(Wire):
    """One thing that may be garbage: an epoch in the bucket, what a zombie uploaded there, a volume set aside on the
    node, or an app archive. `goes`: it is deleted, or would be; `reason` is one token, `message` says it in words."""

    kind: Literal["epoch", "orphans", "volume", "app"]
    name: str
    objects: int = 0
    size_bytes: int = 0
    goes: bool
    reason: str
    message: str


class GarbageReport(Wire):
    """What a node found of a tenant. `owner`: the tenant is settled there, so its epochs were judged; else only its
    volumes were. `done`: nothing is left that may go."""

    tenant: str
    node: str
    dry_run: bool
    owner: bool
    items: tuple[GarbageItem, ...] = ()
    deleted_objects: int = 0
    deleted_bytes: int = 0
    done: bool = True


class Problem(Wire):
    """RFC 9457. `type` is `urn:fleet:<token>`; `retryable` says whether the same call may succeed later."""

    type: str
    title: str
    status: int
    detail: str = ""
    tenant: str | None = None
    field: str | None = None
    retryable: bool = False
