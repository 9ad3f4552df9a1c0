"""Custody's values: what it hands to the agent, frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from node.agent.ports import Volume
from node.api import Phase


class SessionView(Protocol):
    """What custody needs to know of this machine's session; read anew at each use."""

    @property
    def node(self) -> str:
        """This machine's name."""

    @property
    def session(self) -> int:
        """The session that this machine is in; 0 while it is in none."""

    @property
    def boot_id(self) -> str:
        """The kernel's boot id: a new one means that the machine went down."""

    def live(self) -> bool:
        """Whether the lease's deadline has not passed and nothing is frozen, right now."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Storage credentials for a sidecar. Never logged: `repr` hides them."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReplicaTarget:
    """Where sidecars replicate to. `prefix` is the fleet's, "" or ending in "/"; `endpoint` None for AWS itself.

    `credentials(prefix)` gives those for one key prefix (limited to it where the store can do that).
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    credentials: Callable[[str], Credentials] = field(repr=False)


Kind = Literal["born", "kept", "fresh", "carried", "adopted"]


@dataclass(frozen=True, slots=True)
class Claim:
    """A tenant held by this node and session.

    `kind`: `born` (no data anywhere: the worker starts before `settle`), `kept` (same epoch, this node's volume),
    `fresh` (new epoch, restored), `carried` (new epoch, this node's own volume after the node went down), `adopted`
    (containers of this session run already). `databases` are paths under `data`, `rpo_s` and `retention_s` seconds.
    `restore_id` is the restore that this claim carries out, if any.
    """

    tenant: str
    epoch: int
    data_epoch: int
    session: int
    kind: Kind
    databases: tuple[str, ...]
    rpo_s: float
    retention_s: float
    generation: int
    reason: str
    restore_id: str | None = None

    @property
    def born(self) -> bool:
        """Whether the worker creates the files: it starts first, `settle` follows in the background."""
        return self.kind == "born"

    @property
    def settled(self) -> bool:
        """Whether this epoch is the one that a restore reads."""
        return self.data_epoch == self.epoch


@dataclass(frozen=True, slots=True)
class Prepared:
    """A volume that is ready for its sidecar. Go on with `claim`: an accepted loss may have made it `born`.

    `restored_bytes` is the files' size, 0 if nothing was restored; `set_aside` is where an old volume went.
    """

    claim: Claim
    volume: Volume
    phases: tuple[Phase, ...] = ()
    restored_bytes: int = 0
    set_aside: Path | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """The first snapshot is confirmed and the record says running. `warnings` are sentences for the report."""

    phases: tuple[Phase, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileLag:
    """One file's position here and in the bucket as the sidecar knows them; None while there is none."""

    txid: int | None
    replicated_txid: int | None


@dataclass(frozen=True, slots=True)
class Replication:
    """How far behind the bucket is. `lag_s` and `last_confirmed` (unix seconds) are None while unknown."""

    lag_s: float | None
    last_confirmed: float | None
    behind: bool
    files: Mapping[str, FileLag]
    restarts: int = 0
    unguarded: bool = False


EventKind = Literal[
    "sidecar_restarted", "volume_stopped", "unguarded", "guarded", "behind", "caught_up", "foreign_writer", "ousted"
]


@dataclass(frozen=True, slots=True)
class CustodyEvent:
    """Something that custody saw or did by itself. `foreign_writer` and `ousted`: kill what runs of this tenant;
    `unguarded`: no lock keeps its log until it is copied. `volume_stopped`: its disk takes no more writes, and all of
    it is in the bucket."""

    tenant: str
    kind: EventKind
    message: str


Progress = Callable[[str, float | None], None]
"""Called with the phase (`restore`, `snapshot`, …) and its fraction, None while unknown. From any thread."""
