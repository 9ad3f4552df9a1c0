"""What an operator asks for while everything else goes wrong: purges, restores to a moment, drains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.core import change
from node.bucket.records import Cordon, Restore

if TYPE_CHECKING:
    from tests.sim.world import World

AGAIN_S = 1.0
GIVE_UP_S = 4.0


def purge(world: World, tenant: str, lasts_s: float) -> None:
    """It goes for good, at once; made anew as soon as it is gone, `lasts_s` later at the earliest."""
    asked = change.purge(world.wanted[tenant], world.scheduler.now, at_once=True)
    if asked is not None:
        world.note(f"{tenant} is to be purged")
        world.wanted[tenant] = asked
        world.scheduler.after(max(lasts_s, AGAIN_S), lambda: _anew(world, tenant))


def _anew(world: World, tenant: str) -> None:
    current = world.wanted[tenant]
    if current.want != "purged":
        return
    if current.purge_after is not None:
        world.scheduler.after(AGAIN_S, lambda: _anew(world, tenant))
        return
    found = change.put(current, tenant, world.specs[tenant], world.scheduler.now)
    assert found is not None
    world.note(f"{tenant} is wanted anew")
    world.wanted[tenant] = found


def restore(world: World, tenant: str, back_s: float) -> None:
    """Back to a retained moment at which the tenant had everything."""
    at, past, old = world.scheduler.now - back_s, world.judge.past, world.wanted[tenant]
    whole = old.want == "up" and at > past.since.get(tenant, 0.0) + past.spread_s
    if not whole or set(past.at(tenant, at) or ()) != set(old.spec.databases):
        return
    ask = Restore(id=f"restore-{world.number()}", at=at)
    found = change.restore(old, ask, None, world.scheduler.now)
    if found is not None:
        world.note(f"{tenant} is to be as of {at:.2f}")
        past.asked[ask.id] = at
        world.wanted[tenant] = found
        world.scheduler.after(GIVE_UP_S, lambda: _refused(world, tenant, ask.id))


def _refused(world: World, tenant: str, asked: str) -> None:
    """A moment that is not retained any more is not asked for any longer."""
    current, owner = world.wanted[tenant], world.judge.owner(tenant)
    if current.restore is None or current.restore.id != asked or asked in world.judge.past.done:
        return
    if owner is not None and owner["reason"] == "no_point":
        world.note(f"{tenant} is wanted as it is")
        world.wanted[tenant] = change.next_of(current, world.scheduler.now, restore=None)
        return
    world.scheduler.after(GIVE_UP_S, lambda: _refused(world, tenant, asked))


def drain(world: World, node: str, lasts_s: float, at_once: int = 1) -> None:
    """Its tenants leave it, so many at a time; then it takes some again."""
    world.note(f"{node} is drained")
    world.cordons[node] = Cordon(state="draining", at_once=at_once, since=world.scheduler.now)
    world.scheduler.after(max(lasts_s, 12.0), lambda: opened(world, node))


def opened(world: World, node: str) -> None:
    """It takes tenants again."""
    if world.cordons.pop(node, None) is not None:
        world.note(f"{node} is open again")
