"""Deciding a claim: may this node take the tenant, and does its volume go on in the same epoch? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.agent.custody import position
from node.agent.custody.position import Position
from node.bucket import liveness
from node.bucket.records import Lease, Owner, Restore

IDLE = frozenset({"released", "hibernated", "purged", "lost", "damaged"})
CLEAN = frozenset({"released", "hibernated"})
DOWN = frozenset({"lost", "damaged"})


@dataclass(frozen=True, slots=True)
class Me:
    """This node and its session, and the kernel's boot."""

    node: str
    session: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """What a volume says of itself: its marker (epoch 0: none confirmed) and each file's newest raw txid. `intact`,
    asked after its machine went down: its files still hold all that was copied out of them. `foreign`: somebody else
    wrote into its epoch's prefix, so that only the volume is the tenant's own.
    """

    node: str
    epoch: int
    boot_id: str
    local: Mapping[str, int]
    intact: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Continue:
    """Same epoch, same volume."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """A new epoch on a fresh volume, or with `carried` on the one that is here. `reason` is the lineage's."""

    epoch: int
    reason: str
    carried: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another session holds it, and is not over."""

    why: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class No:
    """Nobody may claim it as it is: `reason` one token."""

    reason: str
    why: str


Decision = Continue | Fresh | Elsewhere | No


def session_over(owner: Owner, lease: Lease | None) -> bool:
    """Whether the owner's session is over, by its node's lease, which was read *after* the owner record.

    Gone for that session, or a later session: never merely another, and never for a lease that is missing.
    """
    if lease is None or lease.node != owner.node:
        return False
    return liveness.session_over(lease, owner.session)


def freedom(me: Me, owner: Owner | None, lease: Lease | None, restore: Restore | None) -> Elsewhere | No | None:
    """None if `me` may claim the tenant now, else why not. `lease` is that of the owner's node."""
    if owner is None:
        return None
    if owner.state in DOWN and not (restore and restore.id != owner.restore_id):
        return No(owner.state, owner.message or f"its data is {owner.state}")
    if owner.state in IDLE or _mine(me, owner) or session_over(owner, lease):
        return None
    return Elsewhere(f"node {owner.node} holds it in session {owner.session}", owner.node, owner.epoch)


def overtaken(owner: Owner | None, generation: int) -> No | None:
    """A purge ends every generation before it: an agent or a controller that has not heard of it brings nothing up."""
    if owner is None or owner.state != "purged" or generation >= owner.observed_generation:
        return None
    return No("overtaken", f"it was purged by generation {owner.observed_generation}: generation {generation} is over")


def _mine(me: Me, owner: Owner) -> bool:
    # An earlier session of this node: the guard promises that nothing of it runs, or will.
    return owner.node == me.node and owner.session <= me.session


def comparable(me: Me, owner: Owner | None, volume: VolumeFacts | None, restore: Restore | None) -> bool:
    """Whether the volume may go on if its positions allow it: only then are they worth a LIST."""
    return (
        owner is not None
        and volume is not None
        and not wanted(owner, restore)
        and volume.node == me.node == owner.node
        and volume.epoch == owner.data_epoch
        and (_carrying(owner) or (volume.epoch == owner.epoch and owner.state in {"claimed", "running", *CLEAN}))
    )


def _carrying(owner: Owner) -> bool:
    """Whether its last claim is one to carry the data epoch's volume, and has come to nothing so far.

    The volume's marker still names the data epoch, so nothing has run on it since; and each claim names the epoch that
    it carries under, so that no other has come between. It is claimed once more, never gone on with as it is.
    """
    return owner.state == "claimed" and owner.carried == owner.epoch > owner.data_epoch > 0


def wanted(owner: Owner | None, restore: Restore | None) -> bool:
    """Whether a restore was asked for and has not been carried out."""
    return restore is not None and (owner is None or owner.restore_id != restore.id)


def decide(
    me: Me,
    owner: Owner | None,
    volume: VolumeFacts | None,
    positions: Mapping[str, Position] | None,
    restore: Restore | None,
    rpo_s: float = 0.0,
) -> Continue | Fresh:
    """What to claim, once `freedom` allows it. `positions` None: not comparable, or not known.

    A machine that went down may have had uploads under way, so its epoch does not go on; but with `rpo_s` its volume
    may hold the only copy of the last seconds, and goes on under a new one if it is not behind.
    """
    if owner is None:
        return Fresh(1, "restore" if restore and restore.source else "born")
    if comparable(me, owner, volume, restore) and volume is not None and positions is not None:
        same_boot = volume.boot_id == me.boot_id
        if volume.foreign and (same_boot or volume.intact):
            return Fresh(owner.epoch + 1, "failover", carried=True)
        if same_boot and volume.epoch == owner.epoch and position.not_behind(positions):
            return Continue(owner.epoch)
        if owner.state in CLEAN and position.exactly(positions, volume.local, owner.positions):
            return Continue(owner.epoch)
        unclean = not same_boot and owner.state not in CLEAN
        if rpo_s > 0 and unclean and volume.intact and position.not_behind(positions):
            return Fresh(owner.epoch + 1, "unclean", carried=True)
    return Fresh(owner.epoch + 1, _reason(me, owner, volume, restore))


def _reason(me: Me, owner: Owner, volume: VolumeFacts | None, restore: Restore | None) -> str:
    if wanted(owner, restore):
        return "restore"
    if owner.state == "purged":
        return "reborn"
    if owner.state in CLEAN:
        return "move"
    if owner.node == me.node and volume is not None and volume.boot_id != me.boot_id:
        return "unclean"
    return "failover"
