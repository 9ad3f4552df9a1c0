"""The guard's dealings with the bucket: its own lease and `fleet.json`, from threads, each write made definite."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from node.agent.custody import fleetfile, lease
from node.agent.custody import session as rules
from node.agent.custody.lease import Machine
from node.agent.custody.session import Mode, Session
from node.agent.custody.sessionfile import Pending
from node.agent.custody.threads import in_thread
from node.bucket import cas, keys, liveness
from node.bucket.cas import Held
from node.bucket.errors import BucketError, Conflict
from node.bucket.probe import probe
from node.bucket.records import Fleet, Lease
from node.bucket.store import Store

log = structlog.get_logger()

# While shared, only an operator changes the mode, and nobody waits for it.
_MODE_EVERY = 12
_WATCH_STEP_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """A new session about to be written: the fleet's figures, and the write itself."""

    session: Session
    write: Pending
    fleet_id: str


class Registrar:
    """One machine's entry in the bucket. Keeps no state that matters: what must not be forgotten is the guard's."""

    def __init__(self, machine: Machine, founding: Mode, store: Callable[[], Store], state_dir: Path) -> None:
        """`store` opens the bucket; it is called once, from a thread: a guard that is back has a deadline to keep."""
        self._machine = machine
        self._founding = founding
        self._open = store
        self._opened: Store | None = None
        self._opening = threading.Lock()
        self._state_dir = state_dir
        self._key = keys.node(machine.node)
        self._renewals = 0
        self._mode: Mode | None = None
        self._probed = False

    def _store(self) -> Store:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    async def plan(self, session: Session) -> Plan:
        """The lease of the session after the last that was ever written here; nothing is written yet but `fleet.json`.

        Waits where another machine that was given this one's name may be alive. Raises fleetfile.AnotherFleet,
        Unsupported (a store that ownership cannot rest on), and the store's other errors.
        """
        if not self._probed:
            await in_thread(lambda: probe(self._store()))
            self._probed = True
        held, known = await in_thread(
            lambda: fleetfile.establish(self._store(), self._state_dir, self._machine.node, self._founding)
        )
        fleet = held.record
        if fleet.mode == "solo" and await in_thread(self._others):
            log.info("fleet.shared", hint="another machine is here: the fleet is no longer solo")
            fleet = await in_thread(lambda: fleetfile.share(self._store(), held))
        self._machine = replace(self._machine, id=known.machine)
        self._mode = fleet.mode
        before = await self._before()
        planned = rules.planned(session, mode=fleet.mode, ttl_s=fleet.ttl_s, margin_s=fleet.margin_s)
        record = lease.first(self._machine, before.record if before else None, session=planned, nonce=cas.new_nonce())
        return Plan(planned, Pending(record, before.etag if before else None, started=0.0), fleet.id)

    def _others(self) -> bool:
        """Whether another machine has a lease that it has not given back."""
        for entry in self._store().list(keys.NODES):
            if entry.key != self._key:
                other = cas.read(self._store(), entry.key, Lease)
                if other is not None and other.record.state != "gone":
                    return True
        return False

    async def _before(self) -> Held[Lease] | None:
        """The lease that the new one replaces. If another state folder writes it, it must be silent for its time."""
        seen: liveness.Sighting | None = None
        while True:
            began = time.monotonic()
            held = await in_thread(lambda: cas.read(self._store(), self._key, Lease))
            if held is None or held.record.state == "gone":
                return held
            other = held.record.machine
            if not other or other == self._machine.id:
                return held
            if seen is not None and (held.record.session, held.record.seq) != (seen.session, seen.seq):
                raise fleetfile.AnotherFleet(
                    f"another machine renews the lease of node {self._machine.node} right now: set another FLEET_NODE "
                    "for this one, or stop that one first"
                )
            if seen is None:
                log.warning("lease.of_another_machine", hint="waiting until it is surely dead", url=held.record.url)
            # Whoever gives a machine the name of a dead one takes its place, solo or not: nobody else could.
            judged = held.record.model_copy(update={"mode": "shared"})
            seen, verdict = liveness.look(seen, judged, began=began, ended=time.monotonic())
            if verdict != "alive":
                return held
            await asyncio.sleep(_WATCH_STEP_S)

    async def next(self, session: Session, before: Lease) -> tuple[Lease, Mode]:
        """The renewal that follows `before`, and the mode that it says."""
        mode = await self._wanted_mode(session)
        return lease.next_lease(self._machine, before, session=session, mode=mode, nonce=cas.new_nonce()), mode

    async def _wanted_mode(self, session: Session) -> Mode:
        """What `fleet.json` says: asked before each renewal while solo (a join waits for it), else now and then."""
        self._renewals += 1
        if session.mode == "shared" and self._renewals % _MODE_EVERY != 1:
            return self._mode or session.mode
        try:
            held = await asyncio.wait_for(
                in_thread(lambda: cas.read(self._store(), keys.FLEET, Fleet)), session.ttl_s / 6
            )
        except (BucketError, TimeoutError):
            return session.mode
        if held is not None:
            self._mode = held.record.mode
        return self._mode or session.mode

    async def definite(self, write: Pending, *, ttl_s: float) -> str:
        """Send one write until its outcome is known; answers the ETag. Raises Conflict: somebody else's is there."""
        attempt = 0
        while True:
            attempt += 1
            try:
                held = await in_thread(
                    lambda: cas.write(self._store(), self._key, write.lease, write.etag, give_up=lambda _: None)
                )
                return held.etag
            except Conflict:
                raise
            except BucketError as e:
                if attempt & (attempt - 1) == 0:  # 1, 2, 4, 8 …: a long outage is not a long log
                    log.warning("lease.unanswered", attempt=attempt, code=e.code, error=str(e))
                await asyncio.sleep(lease.retry_after(attempt, ttl_s=ttl_s))

    async def farewell(self, session: Session, ours: Lease, pending: Pending | None) -> None:
        """Say that the session is over. Raises Conflict when somebody else has said so before."""
        etag = session.etag
        if pending is not None:
            etag, ours = await self.definite(pending, ttl_s=session.ttl_s), pending.lease
        last = liveness.gone(ours, nonce=cas.new_nonce())
        await self.definite(Pending(last, etag, started=0.0), ttl_s=session.ttl_s)
