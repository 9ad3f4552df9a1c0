"""What must hold, asked at every change that could break it.

`always`: whatever happens. `bounded`: while clocks drift by less than the margin and count pauses. `settles`: once
faults have stopped. `defect`: the product itself said so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from node.agent.custody import ltx
from node.bucket import keys
from tests.sim.disk import Volume, listed, read_chain
from tests.sim.lost import Lost
from tests.sim.past import Past

if TYPE_CHECKING:
    from tests.sim.machine import Container
    from tests.sim.world import World

Kind = Literal["always", "bounded", "settles", "defect"]


@dataclass(frozen=True)
class Violation:
    """Something that must not be."""

    kind: Kind
    rule: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.rule}: {self.text} (at {self.at:.3f} s)"


@dataclass(frozen=True)
class Ack:
    """A write that its client was told is safe."""

    row: int
    files: tuple[str, ...]
    at: float


@dataclass
class Judge:
    """Sees everything, and changes nothing."""

    world: World
    violations: list[Violation] = field(default_factory=list)
    owners: dict[str, list[tuple[float, dict[str, Any]]]] = field(default_factory=lambda: defaultdict(list))
    leases: dict[str, dict[str, Any]] = field(default_factory=dict)
    acks: dict[str, list[Ack]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.past = Past(self)
        self.lost = Lost()
        self._looking = False

    def find(self, kind: Kind, rule: str, text: str) -> None:
        """Note a violation; the first of its rule is enough."""
        if all(v.rule != rule for v in self.violations):
            self.violations.append(Violation(kind, rule, self.world.scheduler.now, text))
            self.world.note(f"VIOLATION {kind}: {rule}: {text}")

    def owner(self, tenant: str) -> dict[str, Any] | None:
        """The owner record as it is."""
        found = self.owners[tenant]
        return found[-1][1] if found else None

    # ---- the bucket changed

    def wrote(self, key: str, body: bytes, before: bytes | None) -> None:
        """A record was written, or an object of Litestream's."""
        if key.startswith(keys.OWNERS):
            self._owner(keys.name_of(key), json.loads(body))
        elif key.startswith(keys.NODES):
            self._lease(keys.name_of(key), json.loads(body))
        elif key.startswith("lineage/") and before is not None:
            self.find("always", "lineage written once", key)
        if key.startswith((keys.OWNERS, keys.NODES)) and json.loads(body)["nonce"] in self.lost:
            self.find("always", "what was called lost stays lost", key)

    def _owner(self, tenant: str, record: dict[str, Any]) -> None:
        before = self.owner(tenant)
        self.owners[tenant].append((self.world.scheduler.now, record))
        said = f"epoch {record['epoch']} data {record['data_epoch']} {record['node']}/{record['session']}"
        self.world.note(f"owner {tenant}: {record['state']} {said}")
        self.past.owner(tenant, record)
        self.past.released(tenant, record, before)
        if before is not None and record["epoch"] < before["epoch"]:
            self.find("always", "epochs grow", f"{tenant}: {record['epoch']} after {before['epoch']}")
        if record["state"] in ("lost", "damaged"):
            self.find("always", "nothing is lost", f"{tenant} is {record['state']}: {record['message']}")
        if record["data_epoch"] and (before is None or before["data_epoch"] != record["data_epoch"]):
            self.restorable(tenant)
            self._complete(tenant, record["data_epoch"], record["state"])
        self.running(f"owner record of {tenant}")

    def _complete(self, tenant: str, epoch: int, state: str) -> None:
        """An epoch that is named as the data holds every file that it took over, or, running, was born with."""
        lineage = json.loads(self.world.bucket.peek(keys.lineage(tenant, epoch)) or b'{"cut": {}}')
        files = lineage["cut"] or (self.world.specs[tenant].databases if state == "running" else ())
        held = self.content(tenant, epoch)
        if missing := [db for db in files if not held.get(db)]:
            self.find("always", "data names whole epochs", f"{tenant}: {missing} not in epoch {epoch}")

    def _lease(self, node: str, record: dict[str, Any]) -> None:
        before = self.leases.get(node)
        self.leases[node] = record
        if before is None or (before["session"], before["state"]) != (record["session"], record["state"]):
            self.past.session_over()
            self.world.note(f"lease {node}: session {record['session']} {record['state']} {record['mode']}")
            m = self.world.machines.get(node)
            moving = [c.name for c in m.containers.values() if c.moves] if m is not None else []
            if moving:
                self.find(
                    "bounded",
                    "nothing runs across sessions",
                    f"{node}: {moving} as session {record['session']} begins or ends",
                )

    def uploaded(self, key: str, body: bytes, before: bytes | None, by: int) -> None:
        """One writer an epoch: no object is replaced by another history's."""
        if before is not None and before != body:
            self.find("always", "one history an epoch", f"{key} is overwritten by another one")

    def deleted(self, key: str) -> None:
        """Nothing goes that a restore of a retained moment needs."""
        if not key.startswith("data/"):
            return
        _, tenant, name, *_rest = key.split("/")
        epoch, owner = int(name[1:], 16), self.owner(tenant)
        if self.past.over(tenant, epoch):
            return
        if not self._looking:
            self._looking = True
            self.world.scheduler.soon(lambda: self._collected(tenant))
        if owner is None or epoch >= owner["data_epoch"]:
            self.find(
                "always", "nothing needed is deleted", f"{key}, and the data is epoch {owner and owner['data_epoch']}"
            )
            return
        replaced = next((at for at, r in self.owners[tenant] if r["epoch"] > epoch), None)
        spread = max((m.clock.spread for m in self.world.machines.values()), default=0.0)
        age = self.world.scheduler.now - (replaced if replaced is not None else self.world.scheduler.now)
        if age + spread + 1.0 < self.world.retention_s:
            self.find("always", "nothing retained is deleted", f"{key}: replaced {age:.1f} s ago")

    def _collected(self, tenant: str) -> None:
        self._looking = False
        self.past.retained(tenant)

    def content(self, tenant: str, epoch: int) -> dict[str, list[int]]:
        """What a restore of an epoch's newest state gives, by file."""
        prefix = keys.epoch_data(tenant, epoch)
        found = listed(self.world.bucket.list(prefix), prefix)
        rows = {}
        for db, objects in found.items():
            body = {o.key: self.world.bucket.peek(o.key) or b"[]" for o in objects}
            rows[db] = read_chain(objects, ltx.newest(objects), body) or []
        return rows

    def anything(self, tenant: str) -> bool:
        """Whether a row of the tenant's is anywhere in the bucket."""
        found = [
            key
            for key in self.world.bucket.keys(keys.tenant_data(tenant))
            if not self.past.over(tenant, int(key.split("/")[2][1:], 16))
        ]
        return any(self.world.bucket.peek(key) != b"[]" for key in found)

    def restorable(self, tenant: str) -> None:
        """Every acknowledged write is in what a restore would give now."""
        owner, acks = self.owner(tenant), self.acks[tenant]
        if owner is None or not acks:
            return
        rows = {db: set(found) for db, found in self.content(tenant, owner["data_epoch"]).items()}
        missing = [a.row for a in acks if any(a.row not in rows.get(db, ()) for db in a.files)]
        if missing:
            self.find(
                "always", "no acknowledged write is missing", f"{tenant}: {missing} in epoch {owner['data_epoch']}"
            )

    # ---- machines changed

    def started(self, c: Container) -> None:
        """A container starts; a worker makes its files if there are none."""
        if c.role != "worker":
            return
        self.past.started(c)
        owner = self.owner(c.tenant)
        mine = owner is not None and (owner["node"], owner["epoch"]) == (c.machine.name, c.epoch)
        if mine and c.volume.empty and self.anything(c.tenant):
            self.find("always", "never born empty over data", f"{c.tenant} on {c.machine.name}")
        self.running(f"start on {c.machine.name}")

    def running(self, why: str) -> None:
        """One copy at most runs, it is the owner's, and it has every acknowledged write."""
        for tenant in self.world.specs:
            copies = [c for m in self.world.machines.values() if (c := m.find(tenant, "worker")) and c.moves]
            if len(copies) > 1:
                self.find("bounded", "one copy runs", f"{tenant}: {[c.machine.name for c in copies]} ({why})")
            for c in copies:
                self._owned(c, why)
                self.past.runs(c)

    def _owned(self, c: Container, why: str) -> None:
        owner, node = self.owner(c.tenant), c.machine.name
        mine = owner is not None and owner["node"] == node and owner["epoch"] == c.epoch
        if not mine:
            self.find("bounded", "only the owner runs", f"{c.tenant} on {node}, epoch {c.epoch} ({why})")
        elif owner is not None:
            lease = self.leases.get(node)
            if lease is None or lease["session"] != owner["session"] or lease["state"] == "gone":
                self.find("bounded", "only a live session runs", f"{c.tenant} on {node} ({why})")
        held = {db: set(f.rows) for db, f in c.volume.files.items()}
        missing = [a.row for a in self.acks[c.tenant] if any(a.row not in held.get(db, ()) for db in a.files)]
        if missing:
            self.find(
                "always" if mine else "bounded",
                "what runs has every acknowledged write",
                f"{c.tenant} on {node}: {missing}",
            )

    def acked(self, c: Container, ack: Ack, asked_at: float) -> None:
        """A client hears that its write is safe: the record must have named this epoch after it asked."""
        spans = self.owners[c.tenant]
        until = [at for at, _ in spans[1:]] + [float("inf")]
        named = any(
            end >= asked_at and r["node"] == c.machine.name and r["epoch"] == r["data_epoch"] == c.epoch
            for end, (_, r) in zip(until, spans, strict=True)
        )
        if not named:
            self.find(
                "always", "only the owner acknowledges", f"{c.tenant} epoch {c.epoch} of {c.machine.name}: {ack.row}"
            )
        if self.past.counts(c.tenant, c.epoch):
            self.acks[c.tenant].append(ack)

    def read(self, c: Container) -> None:
        """A client never misses what it was told is safe."""
        known = self.acks[c.tenant]
        held = {db: set(f.rows) for db, f in c.volume.files.items()}
        missing = [a.row for a in known if any(a.row not in held.get(db, ()) for db in a.files)]
        if missing:
            self.find("bounded", "values never go back", f"{c.tenant} on {c.machine.name}: {missing}")

    def discarded(self, tenant: str, vol: Volume) -> None:
        """A volume is deleted only if the bucket has all of it; it may hold the only copy of unconfirmed writes."""
        best: dict[str, set[int]] = defaultdict(set)
        for key in self.world.bucket.keys(keys.tenant_data(tenant)):
            _, _, _, db, *_rest = key.split("/")
            best[db] |= set(json.loads(self.world.bucket.peek(key) or b"[]"))
        lives = {db: {row for row in f.rows if not self.past.dead(tenant, row)} for db, f in vol.files.items()}
        lost = sorted(row for db, rows in lives.items() for row in rows - best[db])
        if lost:
            self.find("always", "no volume is deleted with the only copy", f"{tenant}: {lost}")

    # ---- the end

    def settled(self, tenant: str) -> str:
        """Empty if a tenant runs where its record says so, else what is wrong."""
        owner = self.owner(tenant)
        if owner is None:
            return "it has no owner record"
        wanted = self.world.wanted[tenant].restore
        if wanted is not None and wanted.id not in self.past.done:
            return f"it was not brought back to {wanted.at}"
        if owner["state"] != "running" or owner["data_epoch"] != owner["epoch"]:
            return f"its record says {owner['state']}, epoch {owner['epoch']}, data {owner['data_epoch']}"
        m = self.world.machines.get(owner["node"])
        c = m.find(tenant, "worker") if m is not None else None
        if m is None or c is None or not c.moves or tenant not in m.routes or m.agent is None:
            return f"nothing runs on {owner['node']}"
        side = m.find(tenant, "sidecar")
        return "" if side is not None and side.moves else f"nothing streams on {owner['node']}"

    def finish(self) -> None:
        """Faults have stopped long ago."""
        for tenant in self.world.specs:
            if why := self.settled(tenant):
                self.find("settles", "every tenant settles", f"{tenant}: {why}")
            self.restorable(tenant)
            self.past.retained(tenant)
        self.running("the end")
