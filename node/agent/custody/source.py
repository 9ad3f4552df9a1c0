"""Where each file of a new epoch comes from. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from node.agent.custody import ltx
from node.bucket import keys
from node.bucket.records import Lineage


@dataclass(frozen=True, slots=True)
class Source:
    """One file: transaction `txid` of an epoch of a tenant, as of `at` (unix seconds, None: its newest)."""

    tenant: str
    epoch: int
    txid: int
    at: float | None = None

    def prefix(self, db: str) -> str:
        """Litestream's path of this file, relative to the fleet's prefix."""
        return keys.database(self.tenant, self.epoch, db)


Sources = Mapping[str, Source]


def parent(sources: Sources, tenant: str) -> tuple[str, int]:
    """The (tenant, epoch) that most files come from; (tenant, 0) for none."""
    if not sources:
        return tenant, 0
    return Counter((s.tenant, s.epoch) for s in sources.values()).most_common(1)[0][0]


def lineage(record: Lineage, sources: Sources) -> Lineage:
    """The lineage with what these sources say."""
    of_tenant, epoch = parent(sources, record.tenant)
    return record.model_copy(
        update={
            "parent_tenant": of_tenant,
            "parent_epoch": epoch,
            "cut": {db: ltx.hex16(s.txid) for db, s in sources.items()},
            "epochs": {db: s.epoch for db, s in sources.items() if s.epoch != epoch},
        }
    )
