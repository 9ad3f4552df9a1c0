"""Machines that an operator closes and opens: one record in the bucket, changed by compare-and-swap."""

from __future__ import annotations

from collections.abc import Callable

from fleet.bucket import Bucket, translated
from fleet.errors import Conflict, FleetError, NotFound
from fleet.events import Events
from fleet.world import World
from node.bucket import keys
from node.bucket.cas import new_nonce
from node.bucket.errors import Conflict as Lost
from node.bucket.records import Cordon, Cordons

_ATTEMPTS = 5

_SAID = {
    None: "node {node} takes tenants again",
    "cordoned": "node {node} is cordoned: it takes no new tenant",
    "draining": "node {node} is drained: its tenants move away, {n} at a time",
}


class Cordoner:
    """`written` is called after each change that was made."""

    def __init__(self, world: World, bucket: Bucket, events: Events, written: Callable[[], None]) -> None:
        self._world = world
        self._bucket = bucket
        self._events = events
        self._written = written

    async def open(self, node: str) -> None:
        """Let it take tenants again; those that have not left stay. Raises NotFound, Unavailable, OutcomeUnknown."""
        await self._set(node, None)

    async def cordon(self, node: str) -> None:
        """Give it no new tenant; a drain of it stops."""
        await self._set(node, Cordon(state="cordoned", since=self._world.clock()))

    async def drain(self, node: str, at_once: int) -> None:
        """Move its tenants away, so many at a time."""
        await self._set(node, Cordon(state="draining", at_once=at_once, since=self._world.clock()))

    def known(self, node: str) -> None:
        """Raises NotFound."""
        if node not in self._world.leases:
            raise NotFound(f"there is no node {node}; `fleet nodes` lists those that joined")

    async def _set(self, node: str, wanted: Cordon | None) -> None:
        self.known(node)
        for _ in range(_ATTEMPTS):
            with translated(None):
                held = await self._bucket.read(keys.CORDONS, Cordons)
            before = held.record if held is not None else Cordons(nonce="")
            if held is not None and _same(before.nodes.get(node), wanted):
                self._world.set_cordons(keys.CORDONS, held)
                return
            nodes = {name: cordon for name, cordon in before.nodes.items() if name != node}
            if wanted is not None:
                nodes[node] = wanted
            record = before.model_copy(update={"nodes": nodes, "nonce": new_nonce()})
            try:
                with translated(None, writes=True):
                    made = await self._bucket.write(keys.CORDONS, record, held.etag if held is not None else None)
            except FleetError as e:
                if isinstance(e.__cause__, Lost):
                    continue
                raise
            self._world.set_cordons(keys.CORDONS, made)
            text = _SAID[wanted.state if wanted is not None else None]
            said = text.format(node=node, n=wanted.at_once if wanted is not None else 0)
            self._events.emit("node", said, node=node, reason=wanted.state if wanted is not None else "open")
            self._written()
            return
        raise Conflict("the record of closed nodes keeps changing; try again")


def _same(before: Cordon | None, wanted: Cordon | None) -> bool:
    if before is None or wanted is None:
        return before is wanted
    return (before.state, before.at_once) == (wanted.state, wanted.at_once)
