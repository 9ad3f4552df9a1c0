"""Reads the lease of every machine as often as it is renewed, and ends the session of one that is silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from fleet.bucket import Bucket
from fleet.core.silence import Track, after_failure, after_read, overdue
from fleet.events import Events
from fleet.world import World
from node.bucket import keys
from node.bucket.cas import Held, new_nonce
from node.bucket.errors import BucketError, Conflict
from node.bucket.liveness import gone
from node.bucket.records import Lease

# What could not be read at all, or was already there when this controller began to look.
RETRY_S = 1.0

log = structlog.get_logger("fleet.leases")


@dataclass(frozen=True, slots=True)
class _Known:
    """A lease as last read, and what its reads so far say."""

    lease: Lease
    track: Track


class Leases:
    """One task a machine that lives. `acts`: whether this controller may end a session; the others only look, so that
    whoever takes over has seen how long each machine is silent.
    """

    def __init__(self, world: World, bucket: Bucket, events: Events, acts: Callable[[], bool]) -> None:
        self._world = world
        self._bucket = bucket
        self._events = events
        self._acts = acts
        self._known: dict[str, _Known] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def sync(self) -> None:
        """Begin to look at machines that are new or came back."""
        for node, lease in self._world.leases.items():
            task = self._tasks.get(node)
            if lease.state != "gone" and (task is None or task.done()):
                self._known.pop(node, None)
                self._tasks[node] = asyncio.create_task(self._follow(node), name=f"lease:{node}")

    def age_s(self, node: str) -> float | None:
        """How long ago the machine's last renewal was first seen here, None if none was."""
        known = self._known.get(node)
        return time.monotonic() - known.track.sighting.since if known is not None else None

    async def close(self) -> None:
        """Look no more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _follow(self, node: str) -> None:
        """Look until the session is over; a later one is noticed by the watch."""
        while True:
            try:
                due = await self._look(node)
            except Exception:
                log.exception("a look at a lease failed", node=node)
                due = time.monotonic() + RETRY_S
            if due is None:
                return
            # A moment more than asked for: a read that begins too early decides nothing.
            await asyncio.sleep(max(0.0, due - time.monotonic()) + 0.002)

    async def _look(self, node: str) -> float | None:
        """One read and what follows from it; answers when the next one is due."""
        known = self._known.get(node)
        began = time.monotonic()
        try:
            held = await self._bucket.read(keys.node(node), Lease)
        except BucketError as e:
            log.warning("a lease cannot be read", node=node, error=str(e))
            return self._failed(node, known)
        ended = time.monotonic()
        if held is None:
            return self._failed(node, known)
        track = after_read(known.track if known else None, held.record, began=began, ended=ended)
        self._known[node] = _Known(held.record, track)
        self._world.set_lease(keys.node(node), held)
        self._world.lease_overdue(node, overdue(track, held.record))
        if track.verdict == "silent" and self._acts():
            return await self._revoke(node, held, ended - track.sighting.since, track)
        return track.due

    def _failed(self, node: str, known: _Known | None) -> float:
        now = time.monotonic()
        if known is None:
            return now + RETRY_S
        track = after_failure(known.track, known.lease, ended=now)
        self._known[node] = _Known(known.lease, track)
        return track.due or now + RETRY_S

    async def _revoke(self, node: str, held: Held[Lease], silent_s: float, track: Track) -> float | None:
        """End the session under the ETag of the read that decided. A machine that renewed first keeps everything.

        Where the outcome stays unknown the lease is simply read again: what may still land is this session's end under
        that same ETag, which is right whenever it lands.
        """
        lease = held.record
        try:
            ended = await self._bucket.write(keys.node(node), gone(lease, nonce=new_nonce()), held.etag)
        except Conflict:
            log.info("a silent machine's lease was written meanwhile", node=node, session=lease.session)
            return time.monotonic()
        except BucketError as e:
            log.warning("a silent machine's session could not be ended yet", node=node, error=str(e))
            return self._failed(node, _Known(lease, track))
        text = (
            f"node {node} has not renewed its lease for {silent_s:.1f} s: session {lease.session} is over, "
            "its tenants are placed elsewhere"
        )
        self._events.emit("node", text, node=node, reason="lease_expired")
        self._world.revoked[node] = lease.session
        self._world.set_lease(keys.node(node), ended)
        return None
