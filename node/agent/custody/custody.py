"""Custody of this node's tenants: the one object through which the agent claims, restores, streams, confirms, releases.

The walk up:   claim → prepare → stream → settle → (worker, route);   a tenant that is born: claim → prepare → stream →
worker → settle in the background. The walk down: (unroute, drain, stop the worker) → release. After an agent's
restart: adopt. Every call may be repeated, and dying inside one is repaired by starting again with `claim`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Literal

from node.agent.custody.values import (
    Claim,
    CustodyEvent,
    Prepared,
    Progress,
    ReplicaTarget,
    Replication,
    SessionView,
    Settled,
)
from node.agent.ports import Container, Runtime, Volumes
from node.api import Assignment, Points
from node.bucket.store import Store


class Custody:
    """Holds tenants for one node. All calls are coroutines of one event loop; blocking work goes to threads."""

    def __init__(
        self,
        store: Store,
        replica: ReplicaTarget,
        runtime: Runtime,
        volumes: Volumes,
        session: Callable[[], SessionView],
        runtime_dir: Path,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`runtime_dir` is on tmpfs: sidecars' configuration lives under it."""
        raise NotImplementedError

    async def claim(self, a: Assignment) -> Claim:
        """Take the tenant by CAS of its owner record: same epoch if the volume here may go on, else epoch + 1.

        Idempotent: what this session holds already is answered again. Raises Refused, OwnedElsewhere, Lost
        (the record says so and the loss is not accepted), Damaged, and the store's errors.
        """
        raise NotImplementedError

    async def prepare(self, claim: Claim, uid: int, disk_bytes: int, progress: Progress) -> Prepared:
        """Make the volume ready: kept, or fresh with every file restored to its cut and checked.

        Raises Lost, Damaged (both recorded in the owner record), Refused (disk full, engine), OwnedElsewhere.
        """
        raise NotImplementedError

    async def stream(self, claim: Claim, uid: int) -> None:
        """Start the sidecar on this epoch's prefix; returns when its socket answers. Raises SidecarFailed, Refused."""
        raise NotImplementedError

    async def settle(self, claim: Claim, progress: Progress | None = None) -> Settled:
        """Wait until every file is confirmed in this epoch's prefix; then marker, then CAS `data_epoch`, running.

        Of a tenant that is born it waits for the files to appear: call it in the background; `missing(tenant)` says
        which are not there. Cancel it freely. Raises Unconfirmed, OwnedElsewhere.
        """
        raise NotImplementedError

    def missing(self, tenant: str) -> tuple[str, ...]:
        """Declared files that do not exist yet: a warning, not an error."""
        raise NotImplementedError

    async def durable(self, tenant: str) -> None:
        """Return when everything committed before the call, in every declared file, is in the bucket and still ours.

        One round serves all who wait. Raises Unconfirmed (unknown) or OwnedElsewhere.
        """
        raise NotImplementedError

    async def replication(self, tenant: str) -> Replication:
        """How far behind the bucket is, from the sidecar alone: no bucket request. KeyError: not held."""
        raise NotImplementedError

    async def release(
        self, tenant: str, *, to: Literal["released", "purged"] = "released", generation: int | None = None
    ) -> None:
        """Give the tenant up cleanly. The worker is stopped before. Confirms the last byte of every file, stops the
        sidecar, records positions, CAS.

        Raises Unconfirmed with how much is not in the bucket; then the sidecar still runs and it may be repeated.
        A tenant that is not held here and has no owner record or is released already: nothing to do, or its tombstone
        is written for `purged`.
        """
        raise NotImplementedError

    async def adopt(self, a: Assignment, containers: Sequence[Container]) -> Claim | None:
        """After an agent's restart: go on with a tenant whose record names this node, session and epoch.

        `containers` are those of this tenant. None: this session does not hold it; whatever runs of it must be killed.
        """
        raise NotImplementedError

    async def resession(self, claim: Claim) -> Claim:
        """CAS a frozen tenant to the machine's new session, same epoch. Raises OwnedElsewhere: kill it."""
        raise NotImplementedError

    async def give_up(self, claim: Claim, *, reason: str, message: str) -> None:
        """This node cannot go on (disk full, no image): stop the sidecar, CAS released, so that others try."""
        raise NotImplementedError

    async def observe(self, claim: Claim, generation: int) -> None:
        """Record that `generation` has been carried out. Raises OwnedElsewhere."""
        raise NotImplementedError

    def held(self) -> tuple[Claim, ...]:
        """Every claim that this object holds."""
        raise NotImplementedError

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant in memory: after it was ousted and killed."""
        raise NotImplementedError

    def watch(self, interval_s: float = 300.0) -> AsyncIterator[CustodyEvent]:
        """Runs for ever: one LIST of owners an interval for all tenants; yields `ousted` when a record is not ours."""
        raise NotImplementedError

    def supervise(self, interval_s: float = 5.0) -> AsyncIterator[CustodyEvent]:
        """Runs for ever: asks each sidecar where it is, restarts those that died or are stuck, yields what happened."""
        raise NotImplementedError

    async def sidecar_ended(self, container: Container) -> CustodyEvent | None:
        """The engine says that a sidecar ended: start it again at once if its tenant is still streaming."""
        raise NotImplementedError

    async def points(self, tenant: str) -> Points:
        """The moments that a tenant can be restored to, from a LIST per epoch and a HEAD per change."""
        raise NotImplementedError

    async def purge(self, tenant: str, epoch: int) -> tuple[int, bool]:
        """Delete the data of a tombstoned tenant, in batches, re-reading the record before each: (deleted, done).

        Raises Refused unless the record says purged at this epoch.
        """
        raise NotImplementedError
