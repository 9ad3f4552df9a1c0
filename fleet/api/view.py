"""What the API takes and answers: frozen wire values. Times are unix seconds, sizes bytes, durations seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.core.model import MachineState
from node.api import Phase, TenantState
from node.bucket.records import Capacity
from node.bucket.spec import TenantSpec


class View(BaseModel):
    """Base of what is answered. A client ignores fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Ask(BaseModel):
    """Base of what is taken: an unknown field is refused by name, a wrong type is not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


SecretName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]
SecretValue = Annotated[str, Field(max_length=65536)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
NodeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class PutTenant(Ask):
    """`PUT /v1/tenants/{t}`: the whole spec, and plain values of secrets that are new or changed.

    `spec.secrets` names the secrets to keep with their versions; those in `secrets` are added to it.
    """

    spec: TenantSpec
    secrets: Annotated[dict[SecretName, SecretValue], Field(max_length=64, repr=False)] = {}


class RestoreTenant(Ask):
    """`POST …/restore`: to the moment `at` (None: the newest), in place or as the new tenant `as`.

    `id` makes it happen once: the same id again answers the same. `node` places it. `accept_data_loss` lets a tenant
    whose data is lost or damaged come up with what there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    id: RequestId | None = None
    at: Annotated[float, Field(ge=0, le=253402300799)] | None = None
    as_tenant: Annotated[NodeName | None, Field(alias="as")] = None
    node: NodeName | None = None
    accept_data_loss: bool = False


class Change(View):
    """One difference that a PUT makes: dotted path in the spec, JSON of the old and new value, None where absent."""

    path: str
    old: object = None
    new: object = None


class ChangeList(View):
    """`PUT …?dry_run=true`: what would change. `creates`: it is new; `restarts`: its server would restart."""

    tenant: str
    creates: bool
    restarts: bool
    changes: tuple[Change, ...]


class TenantView(View):
    """A tenant: what is wanted and what is. `changes` is filled in answers to PUT only.

    `observed_generation` is the last generation carried out or given up: an operation is finished when it has reached
    `generation`. `rolled_back`: the last change did not get healthy and `spec` is the one before it. `since` is when
    `state` began, 0 when not known. `progress` is 0 to 1 while restoring.
    """

    tenant: str
    want: Literal["up", "down", "purged"]
    generation: int
    observed_generation: int
    state: TenantState
    reason: str
    message: str
    node: str | None
    epoch: int
    data_epoch: int
    url: str | None
    spec: TenantSpec
    since: float
    behind: bool
    lag_s: float | None
    last_confirmed: float | None
    progress: float | None
    phases: tuple[Phase, ...]
    warnings: tuple[str, ...]
    restarts: int
    rolled_back: bool
    created_at: float
    updated_at: float
    purge_after: float | None
    changes: tuple[Change, ...] = ()


class TenantList(View):
    """A page of tenants by name; `cursor` asks for the next one, None at the end."""

    tenants: tuple[TenantView, ...]
    cursor: str | None


class NodeView(View):
    """A machine. `state`: ready, cordoned, draining, fenced, unreachable or gone; `reason` and `message` say why.

    `memory_used_bytes` and `cpus_used` are what the tenants placed there may use by their specs. `cordon` is what an
    operator asked of it, `at_once` how many tenants a drain moves at a time. `lease_age_s` is how long ago its last
    renewal was seen, None while it is not looked for.
    """

    node: str
    state: MachineState
    reason: str
    message: str
    session: int
    url: str
    gateway_url: str
    mode: Literal["solo", "shared"]
    capacity: Capacity
    memory_used_bytes: int
    cpus_used: float
    tenants: int
    labels: dict[str, str]
    zone: str
    version: str
    cordon: Literal["open", "cordoned", "draining"]
    at_once: int
    lease_age_s: float | None


class LeavingView(View):
    """A tenant that a drained machine still has, or that is on its way. `stage`: its turn comes (waiting), it is
    between two machines (moving), or it can't go (stuck); `reason` and `message` say why."""

    tenant: str
    stage: Literal["waiting", "moving", "stuck"]
    to: str | None
    reason: str
    message: str


class NodeDetail(NodeView):
    """A machine, and what a drain has still to do there."""

    leaving: tuple[LeavingView, ...] = ()


class Drain(Ask):
    """`POST /v1/nodes/{n}/drain`: how many tenants are between two machines at a time."""

    at_once: Annotated[int, Field(ge=1, le=64)] = 2


class NodeList(View):
    """Every machine that ever had a lease."""

    nodes: tuple[NodeView, ...]


class TokenView(View):
    """A tenant's own bearer token for its gateway; None when its access is open."""

    tenant: str
    token: str | None


class AppView(View):
    """An app's archive that is in the bucket."""

    sha256: str
    size_bytes: int


class EventView(View):
    """One event. `id` resumes after it (`Last-Event-ID`); `kind` is a token such as `applied`, `state`, `gap`."""

    id: str
    at: float
    kind: str
    tenant: str | None = None
    node: str | None = None
    generation: int | None = None
    state: str | None = None
    reason: str = ""
    message: str = ""


class Target(View):
    """One entry of Prometheus' HTTP service discovery."""

    targets: tuple[str, ...]
    labels: dict[str, str]


class Health(View):
    """`/healthz` and `/readyz`: ok, or why not in the problem document that is answered instead.

    `acts`: this controller is the one that acts; `leader` names the one that does, as far as this one knows.
    """

    status: Literal["ok"]
    nodes_ready: int = 0
    tenants: int = 0
    acts: bool = False
    leader: str = ""
    leader_url: str = ""
