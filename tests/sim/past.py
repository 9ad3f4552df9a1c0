"""What an operator took back: purged lives of a tenant, and what came after a moment that was gone back to.

Holds what the judge has to know of it, and asks what is asked of purges, restores and drains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from node.agent.custody import travel
from node.agent.custody.errors import Refused
from node.bucket import keys
from tests.sim.disk import listed, read_chain

if TYPE_CHECKING:
    from tests.sim.judge import Judge
    from tests.sim.machine import Container

_MOMENTS = 4
_DOUBT_S = 0.1


@dataclass
class Past:
    """`rows`: when and in which epoch each was written; `purged`: the last epoch of the lives that are over; `base`:
    the first epoch whose acknowledgements count, `since` when that was; `asked`: the moment that a restore goes back
    to, by its id, and `done` those that were carried out; `between`: who left which machine for another."""

    judge: Judge
    rows: dict[int, tuple[float, int]] = field(default_factory=dict)
    purged: dict[str, int] = field(default_factory=dict)
    base: dict[str, int] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    generation: dict[str, int] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    between: dict[str, str] = field(default_factory=dict)

    @property
    def now(self) -> float:
        """True time."""
        return self.judge.world.scheduler.now

    @property
    def spread_s(self) -> float:
        """How far machines' clocks are from true time: a moment is not sharper than that."""
        return max((m.clock.spread for m in self.judge.world.machines.values()), default=0.0) + _DOUBT_S

    def written(self, row: int, epoch: int) -> None:
        """A server writes."""
        self.rows[row] = self.now, epoch

    def counts(self, tenant: str, epoch: int) -> bool:
        """Whether what this epoch acknowledges is the tenant's."""
        return epoch >= self.base.get(tenant, 0)

    def over(self, tenant: str, epoch: int) -> bool:
        """Whether this epoch is of a life that was purged."""
        return epoch <= self.purged.get(tenant, 0)

    def dead(self, tenant: str, row: int) -> bool:
        """Whether this row is."""
        return self.over(tenant, self.rows[row][1])

    # ---- the record changed

    def owner(self, tenant: str, record: dict[str, Any]) -> None:
        """A purge or a restore may have been carried out."""
        epoch = record["epoch"]
        if record["state"] == "purged" and not self.over(tenant, epoch):
            self.purged[tenant], self.base[tenant], self.since[tenant] = epoch, epoch + 1, self.now
            self.generation[tenant] = record["observed_generation"]
            self.judge.acks[tenant].clear()
        restored = record["restore_id"]
        if restored in self.asked and restored not in self.done and record["data_epoch"] == epoch:
            self.done.add(restored)
            self._gone_back(tenant, epoch, self.asked[restored])
        if record["data_epoch"] == epoch and not self.over(tenant, epoch):
            self._not_revived(tenant, self.judge.content(tenant, epoch), f"epoch {epoch}")
        if record["reason"] == "no_point":
            self._no_point(tenant)
        if record["state"] == "running":
            self.between.pop(tenant, None)

    def released(self, tenant: str, record: dict[str, Any], before: dict[str, Any] | None) -> None:
        """Who gives up what ran leaves nothing behind, whatever its rpo."""
        same = before is not None and (before["epoch"], before["state"]) == (record["epoch"], "running")
        vol = self.judge.world.machines[record["node"]].disk.volumes.get(tenant)
        if not same or record["state"] != "released" or vol is None:
            return
        content = self.judge.content(tenant, record["epoch"])
        missing = {db: sorted(set(f.rows) - set(content.get(db, ()))) for db, f in vol.files.items()}
        if any(missing.values()):
            self.judge.find("always", "released with its last byte", f"{tenant} by {record['node']}: {missing}")

    def started(self, c: Container) -> None:
        """Nobody brings up what was overtaken by a purge."""
        if c.generation < self.generation.get(c.tenant, 0):
            self.judge.find(
                "always",
                "nothing of a purged generation is brought up",
                f"{c.tenant} {c.generation} on {c.machine.name}",
            )

    def _gone_back(self, tenant: str, epoch: int, moment: float) -> None:
        self.base[tenant], self.since[tenant] = epoch, self.now
        acks = self.judge.acks[tenant]
        acks[:] = [a for a in acks if a.at <= moment - self.spread_s]
        for db, rows in self.judge.content(tenant, epoch).items():
            if young := [row for row in rows if self.rows[row][0] > moment]:
                self.judge.find(
                    "always", "a restore goes back to its moment", f"{tenant}: {young} of {db} are past {moment:.2f}"
                )

    def _not_revived(self, tenant: str, content: dict[str, list[int]], where: str) -> None:
        if old := [row for rows in content.values() for row in rows if self.dead(tenant, row)]:
            self.judge.find("always", "nothing purged comes back", f"{tenant}: {old} in {where}")

    def _no_point(self, tenant: str) -> None:
        asked = self.judge.world.wanted[tenant].restore
        if asked is None or asked.at is None:
            return
        kept_s = self.judge.world.retention_s - 2 * self.spread_s
        if self.now - asked.at < kept_s and asked.at > self.since.get(tenant, 0.0):
            self.judge.find("always", "what is retained can be restored", f"{tenant}: not as of {asked.at:.2f}")

    def runs(self, c: Container) -> None:
        """A server moves: not one of a purged life, and none with anything of one."""
        if not self.purged.get(c.tenant):
            return
        if self.over(c.tenant, c.epoch):
            self.judge.find("bounded", "what is purged does not run", f"{c.tenant} epoch {c.epoch} on {c.machine.name}")
        else:
            found = {db: f.rows for db, f in c.volume.files.items()}
            self._not_revived(c.tenant, found, f"its volume on {c.machine.name}")

    # ---- going back

    def at(self, tenant: str, moment: float) -> dict[str, list[int]] | None:
        """What a restore to a moment would give now, None if it would be refused."""
        bucket = self.judge.world.bucket
        try:
            chosen = travel.sources(bucket, tenant, self.judge.world.specs[tenant].databases, moment)
        except Refused:
            return None
        rows = {}
        for db, of in chosen.items():
            prefix = keys.epoch_data(of.tenant, of.epoch)
            objects = listed(bucket.list(prefix), prefix).get(db, ())
            body = {o.key: bucket.peek(o.key) or b"[]" for o in objects}
            rows[db] = read_chain(objects, of.txid, body) or []
        return rows

    def retained(self, tenant: str) -> None:
        """Every retained moment still has what was acknowledged before it."""
        owner, acks = self.judge.owner(tenant), self.judge.acks[tenant]
        if owner is None or not acks or owner["state"] == "purged":
            return
        spread_s, kept_s = self.spread_s, self.judge.world.retention_s
        oldest = max(self.now - kept_s + 2 * spread_s, self.since.get(tenant, 0.0) + spread_s)
        for i in range(_MOMENTS):
            moment = oldest + (self.now - oldest) * i / _MOMENTS
            due = [a for a in acks if a.at <= moment - 2 * spread_s]
            found = self.at(tenant, moment) if due else {}
            rows = {db: set(there) for db, there in (found or {}).items()}
            if missing := [a.row for a in due if any(a.row not in rows.get(db, ()) for db in a.files)]:
                self.judge.find(
                    "always", "every retained moment can be restored", f"{tenant}: {missing} not as of {moment:.2f}"
                )

    # ---- draining

    def sent_off(self, tenant: str, most: int) -> None:
        """A tenant is told to leave a machine that is drained. One controller that lives counts who is between two."""
        world = self.judge.world
        owner = self.judge.owner(tenant)
        if owner is None or owner["state"] != "running":
            return
        self.between[tenant] = owner["node"]
        if len(self.between) > most and len(world.controllers) == 1 and not world.disturbed:
            self.judge.find("always", "at most so many are between two machines", f"{sorted(self.between)}")

    def session_over(self) -> None:
        """Who was on its way to or from a machine whose session is over is not waited for."""
        self.between.clear()
