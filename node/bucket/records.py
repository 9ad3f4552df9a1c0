"""The records in the bucket: strictly parsed values. An unknown format is refused, an unknown field is kept."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node.bucket.errors import BadRecord
from node.bucket.spec import TenantSpec

FORMAT = 1

Count = Annotated[int, Field(ge=0)]
Txids = dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]]


class Record(BaseModel):
    """Base of all records. `nonce` is new in every write: it tells a writer whether a lost answer was its own.

    Fields that a newer version added are kept in `model_extra` and written back.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    format: int = FORMAT
    nonce: str

    def encode(self) -> bytes:
        """The record as stored: JSON with sorted keys, the same value always the same bytes."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, body: bytes, *, key: str) -> Self:
        """Parse a stored record. Raises BadRecord, naming the key and field."""
        try:
            raw = json.loads(body)
        except ValueError as e:
            raise BadRecord(f"{key} is not JSON: {e}", key=key) from None
        if not isinstance(raw, dict):
            raise BadRecord(f"{key} is not a record", key=key)
        if raw.get("format") != FORMAT:
            raise BadRecord(
                f"{key} has format {raw.get('format')!r}; this version reads {FORMAT}: upgrade before using this fleet",
                key=key,
            )
        try:
            return cls.model_validate_json(body)
        except ValidationError as e:
            at = ".".join(map(str, e.errors()[0]["loc"]))
            raise BadRecord(f"{key}: field {at or '(whole)'}: {e.errors()[0]['msg']}", key=key) from None


class Fleet(Record):
    """`fleet.json`: who this bucket belongs to, and the figures every node must agree on. Times in seconds."""

    id: str
    mode: Literal["solo", "shared"]
    ttl_s: float = 15.0
    margin_s: float = 3.0
    retention_s: float = 7 * 86400.0


class Capacity(BaseModel):
    """What a machine offers tenants: bytes of memory and disk, CPUs."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    memory_bytes: Count
    cpus: float
    disk_bytes: Count


class Lease(Record):
    """`nodes/<node>.json`: one machine's session and its liveness. Never deleted.

    `mode` is the fleet mode that this node acts on, so that a change to `shared` can wait for it. `machine` is the
    random id of the state folder that writes it: two machines that were given one name notice each other. `url` is the
    agent's, `gateway_url` where other machines' gateways and clients reach this one's; empty: an older version's.
    """

    node: str
    session: Count
    seq: Count
    ttl_s: float
    margin_s: float
    url: str
    gateway_url: str = ""
    state: Literal["active", "draining", "gone"]
    mode: Literal["solo", "shared"]
    capacity: Capacity
    labels: dict[str, str] = {}
    version: str = ""
    machine: str = ""


OwnerState = Literal["claimed", "running", "released", "hibernated", "lost", "damaged", "purged"]


class Owner(Record):
    """`owners/<t>.json`: who holds a tenant. Changed only by compare-and-swap. Never deleted.

    `data_epoch` is the newest epoch whose first snapshot is confirmed, 0 for none. `positions` is each file's txid
    that is known to be in the bucket: written when the epoch's data is confirmed, a bound that a later cut must reach,
    and at a release, when a volume must be exactly there to go on with the same epoch after its machine went down.
    `restore_id` is the last restore request that was carried out. `born` is the first epoch of a life after a purge:
    what is older is not the tenant's any more. `carried` is the last epoch that was claimed to go on with its node's
    own volume of `data_epoch`.
    """

    tenant: str
    epoch: Annotated[int, Field(ge=1)]
    node: str
    session: Count
    state: OwnerState
    data_epoch: Count
    observed_generation: Count
    positions: Txids = {}
    wake_at: float | None = None
    restore_id: str | None = None
    born: Count = 0
    carried: Count = 0
    reason: str = ""
    message: str = ""


class Lineage(Record):
    """`lineage/<t>/<epoch>.json`: written once at claim. `cut` is each file's txid in its epoch; `at` is unix time.

    That epoch is `parent_epoch` of `parent_tenant`, or the one in `epochs` for a file that is named there: a restore to
    a moment may take files from several epochs. `carried`: the epoch began with its machine's own volume, which holds
    what the cut says and may hold more.
    """

    tenant: str
    epoch: Annotated[int, Field(ge=1)]
    parent_epoch: Count
    parent_tenant: str
    cut: Txids
    epochs: dict[str, int] = {}
    node: str
    session: Count
    reason: Literal["born", "failover", "restore", "move", "unclean", "reborn", "fork"]
    at: float
    restore_id: str | None = None
    carried: bool = False


class Restore(BaseModel):
    """A restore that was asked for: once per `id`. `at` is unix time or None for the newest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    at: float | None = None
    source: str | None = None
    accept_data_loss: bool = False


class Spec(Record):
    """`specs/<t>.json`: what should be. Every change is generation + 1.

    `want`: up, down, or purged. `restarts` counts restarts that were asked for. `previous` is the spec to go back to
    when the new one does not get healthy; `proven` is the last generation that did. `rolled_back` is the generation
    that did not, while `spec` is the one that was gone back to; 0 otherwise.
    `purge_after` is the unix time from which a purged tenant's data may be deleted.
    """

    tenant: str
    generation: Annotated[int, Field(ge=1)]
    want: Literal["up", "down", "purged"]
    spec: TenantSpec
    restarts: Count = 0
    restore: Restore | None = None
    previous: TenantSpec | None = None
    proven: Count = 0
    rolled_back: Count = 0
    purge_after: float | None = None
    created_at: float
    updated_at: float


class Secret(Record):
    """`secrets/<t>/<name>.json`: versions of one secret, each encrypted with FLEET_SECRETS_KEY (Fernet token)."""

    tenant: str
    name: str
    versions: dict[str, str]


class Leader(Record):
    """`controllers/leader.json`: which controller acts. A convenience: two that act are harmless.

    `poked` counts what other controllers wrote meanwhile: the one that acts looks again.
    """

    controller: str
    seq: Count
    ttl_s: float
    url: str
    released: bool = False
    poked: Count = 0


class Cordon(BaseModel):
    """What an operator asked of a machine: take no new tenant, or give away those it has, so many at a time."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    state: Literal["cordoned", "draining"]
    at_once: Annotated[int, Field(ge=1)] = 1
    since: float = 0.0


class Cordons(Record):
    """`controllers/cordons.json`: machines that an operator closed, by name. A lease is its machine's own."""

    nodes: dict[str, Cordon] = {}


class Unused(Record):
    """`controllers/unused.json`: app archives that no spec refers to. `apps` says since when (unix time); `going` are
    those that are being deleted: nobody may begin to use one of them before it is out of the record again."""

    apps: dict[str, float] = {}
    going: tuple[str, ...] = ()
