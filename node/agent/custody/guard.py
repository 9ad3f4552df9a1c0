"""The guard: the small process that holds a machine's session, renews its lease and freezes its tenants in time.

It does nothing else. What it decides is in `session` and `lease`; here the decisions meet the clock, the bucket, the
cgroup and the agent. The order is always: freeze, then write down, then tell; and thaw last.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from node import lock
from node.agent.custody import fleetfile, freezer, lease, sessionfile, view
from node.agent.custody import session as rules
from node.agent.custody.keeper import Keeper, SpawnAgent
from node.agent.custody.lease import Machine
from node.agent.custody.linkserver import LinkServer
from node.agent.custody.session import Mode, Session
from node.agent.custody.sessionfile import Pending, Saved
from node.agent.custody.standin import StandIn
from node.agent.custody.threads import in_thread
from node.agent.ports import Freezer
from node.bucket import cas, keys
from node.bucket.errors import BucketError, Conflict
from node.bucket.records import Fleet, Lease
from node.bucket.store import Store

log = structlog.get_logger()

_LOOK_S = 0.5
_REFREEZE_S = 0.05
_MODE_EVERY = 12
_FAREWELL_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the guard waits, seconds: for an agent that says nothing, and for one that releases without progress."""

    agent_silence_s: float = 20.0
    release_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the guard lives: the tmpfs folder of this boot, and the state folder of this machine."""

    runtime_dir: Path
    state_dir: Path


class Guard:
    """One machine's guard, on one event loop; the bucket is spoken to from threads: no answer delays a freeze."""

    def __init__(
        self,
        machine: Machine,
        mode: Mode,
        store: Store,
        cage: Freezer,
        place: Place,
        spawn_agent: SpawnAgent,
        *,
        patience: Patience | None = None,
        now: Callable[[], float] = view.boottime,
    ) -> None:
        """`mode` is written to `fleet.json` if this machine founds the fleet; else the fleet's own is kept."""
        self._machine = machine
        self._mode = mode
        self._store = store
        self._cage = cage
        self._place = place
        self._now = now
        self._patience = patience or Patience()
        self._boot = view.boot_id()
        self._key = keys.node(machine.node)
        self._fleet: Fleet | None = None
        self._fleet_id = ""
        self._session = Session(node=machine.node, ttl_s=15.0, margin_s=3.0, mode=mode)
        self._lease: Lease | None = None
        self._pending: Pending | None = None
        self._still: bool | None = None  # None: whatever an earlier guard left
        self._renewals = 0
        self._attempted = 0.0
        self._changed = asyncio.Event()
        self._progress = (0, time.monotonic())
        self._refused: Exception | None = None
        self._link = LinkServer(place.runtime_dir, lambda: view.view_of(self._session, self._boot), self._hear)
        self._keeper = Keeper(
            place.runtime_dir / view.AGENT_LOCK, spawn_agent, silence_s=self._patience.agent_silence_s
        )

    async def run(self) -> None:
        """Guard until asked to leave. Raises fleetfile.AnotherFleet if the bucket is not this machine's fleet's."""
        self._resume()
        self._apply()
        await self._link.start()
        self._on_signals()
        tasks = [asyncio.create_task(self._hold()), asyncio.create_task(self._keeper.run())]
        try:
            while self._session.state != "gone" and self._refused is None:
                self._move(rules.tick(self._session, now=self._now()))
                self._apply()
                self._check_release()
                await self._sleep(self._next_look())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._refused is not None:
            await self._link.close()
            raise self._refused
        await self._leave()

    # ---- what happens

    def _resume(self) -> None:
        saved = sessionfile.load(self._place.runtime_dir)
        if saved is None or saved.session.node != self._machine.node:
            return
        if rules.may_resume(saved.session, same_boot=saved.boot_id == self._boot, now=self._now()):
            self._session, self._lease, self._pending = saved.session, saved.lease, saved.pending
            self._fleet_id = saved.fleet_id
            self._attempted = saved.session.started
            log.info("session.resumed", session=self._session.session, seq=self._session.seq)

    def _hear(self, message: dict[str, Any]) -> None:
        self._keeper.heard()
        if "heartbeat" in message and message["heartbeat"] != self._progress[0]:
            self._progress = (message["heartbeat"], time.monotonic())
        if "settled" in message:
            self._move(rules.settled(self._session, number=message["settled"], now=self._now()))
        if "released" in message:
            self._move(rules.released(self._session))

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def stop(self) -> None:
        """Leave: the agent releases everything in order, then the session is over."""
        self._progress = (self._progress[0], time.monotonic())
        self._move(rules.stop(self._session))

    def reload(self) -> None:
        """A new agent, from the program that is installed now; tenants are not touched."""
        self._reloading = asyncio.create_task(self._keeper.reload())

    def _check_release(self) -> None:
        waited = time.monotonic() - self._progress[1]
        if self._session.state == "stopping" and waited > self._patience.release_s:
            log.error("release.stuck", waited_s=round(waited), hint="what is left is frozen and killed; its data stays")
            self._move(rules.released(self._session))

    # ---- carrying it out

    def _move(self, after: Session) -> None:
        before, self._session = self._session, after
        if after == before:
            return
        if after.must_freeze(self._now()):
            self._apply()
        self._save()
        if after.state != before.state:
            log.info(
                "session.state", session=after.session, state=after.state, before=before.state, reason=after.reason
            )
        self._apply()
        self._link.push()
        self._changed.set()

    def _apply(self) -> None:
        wanted = self._session.must_freeze(self._now())
        if wanted and self._still and not freezer.is_frozen(self._cage):
            self._still = False  # somebody thawed it, or a container was born into it this moment
        if wanted == self._still:
            return
        if wanted:
            self._still = freezer.freeze(self._cage)
            if not self._still:
                log.warning("freeze.incomplete", processes=len(freezer.processes(self._cage)))
        else:
            self._still = not freezer.thaw(self._cage)

    def _save(self) -> None:
        sessionfile.save(
            self._place.runtime_dir, Saved(self._boot, self._fleet_id, self._session, self._lease, self._pending)
        )

    def _next_look(self) -> float:
        now = self._now()
        if self._session.must_freeze(now) != self._still:
            return _REFREEZE_S
        if self._session.enforced and self._session.state in ("active", "stopping"):
            return max(0.0, min(_LOOK_S, self._session.deadline - now))
        return _LOOK_S

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but wake for any change."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    # ---- the lease

    async def _hold(self) -> None:
        while self._session.state != "gone":
            try:
                if self._session.state in ("starting", "revoked"):
                    await self._begin()
                else:
                    await self._renew()
            except fleetfile.AnotherFleet as e:
                if self._session.state == "starting":
                    self._refused = e
                    self._changed.set()
                    return
                log.warning("fleet.another", error=str(e))
                await asyncio.sleep(self._session.ttl_s)
            except BucketError as e:
                log.warning("bucket.failed", code=e.code, error=str(e), state=self._session.state)
                await asyncio.sleep(min(1.0, self._session.ttl_s / 6))

    async def _begin(self) -> None:
        """A new session: nothing of an earlier one may run on, so freeze (and kill) comes before the write."""
        while not self._still:
            self._apply()
            await asyncio.sleep(_REFREEZE_S)
        while self._session.state == "revoked" and not await in_thread(lambda: freezer.kill(self._cage)):
            log.error("kill.incomplete", processes=freezer.processes(self._cage))
        fleet = await in_thread(lambda: fleetfile.establish(self._store, self._place.state_dir, self._mode))
        held = await in_thread(lambda: cas.read(self._store, self._key, Lease))
        self._fleet, self._fleet_id = fleet, fleet.id
        wanted = rules.planned(self._session, mode=fleet.mode, ttl_s=fleet.ttl_s, margin_s=fleet.margin_s)
        record = lease.first(self._machine, held.record if held else None, session=wanted, nonce=cas.new_nonce())
        self._session, self._pending = wanted, None
        sent = Pending(record, held.etag if held else None, started=self._now())
        try:
            etag = await self._definite(sent)
        except Conflict:
            return  # somebody else wrote it: read it again
        if self._session.state == "gone":
            return
        self._lease, self._attempted = record, sent.started
        self._move(rules.begun(self._session, number=record.session, etag=etag, started=sent.started, now=self._now()))

    async def _renew(self) -> None:
        if self._pending is None:
            wait = lease.renew_at(self._session, attempted=self._attempted) - self._now()
            if wait > 0:
                await asyncio.sleep(min(wait, _LOOK_S))
                return
            mode = await self._wanted_mode()
            if self._lease is None or self._session.state in ("starting", "revoked", "gone"):
                return
            began = self._now()
            switched = rules.switched(self._session, mode=mode, started=began)
            record = lease.next_lease(self._machine, self._lease, session=switched, mode=mode, nonce=cas.new_nonce())
            self._pending = Pending(record, self._session.etag, began)
            self._move(switched)
            self._save()
        sent = self._pending
        self._attempted = self._now()
        try:
            etag = await self._definite(sent)
        except Conflict:
            self._pending = None
            log.warning("session.lost", session=self._session.session, hint="its lease carries somebody else's write")
            self._move(rules.lost(self._session))
            return
        self._pending, self._lease = None, sent.lease
        said = sent.lease
        self._move(
            rules.renewed(self._session, seq=said.seq, etag=etag, mode=said.mode, started=sent.started, now=self._now())
        )

    async def _definite(self, sent: Pending) -> str:
        """Send one write until its outcome is known; answers the ETag, raises Conflict."""
        attempt = 0
        while True:
            attempt += 1
            try:
                held = await in_thread(
                    lambda: cas.write(self._store, self._key, sent.lease, sent.etag, give_up=lambda _: None)
                )
                return held.etag
            except Conflict:
                raise
            except BucketError as e:
                log.warning("lease.unanswered", attempt=attempt, code=e.code, error=str(e))
                await asyncio.sleep(lease.retry_after(attempt, ttl_s=self._session.ttl_s))

    async def _wanted_mode(self) -> Mode:
        """What `fleet.json` says: asked before each renewal while solo (a join waits for it), else now and then."""
        self._renewals += 1
        if self._session.mode == "shared" and self._renewals % _MODE_EVERY != 1:
            return self._fleet.mode if self._fleet is not None else self._session.mode
        try:
            held = await asyncio.wait_for(
                in_thread(lambda: cas.read(self._store, keys.FLEET, Fleet)), self._session.ttl_s / 6
            )
        except (BucketError, TimeoutError):
            return self._session.mode
        if held is not None and held.record.id == self._fleet_id:
            self._fleet = held.record
        return self._fleet.mode if self._fleet is not None else self._session.mode

    # ---- the end

    async def _leave(self) -> None:
        """Nothing may run once the lease says gone: the agent ends, what is left is frozen and killed, then write."""
        await self._keeper.end()
        self._apply()
        dead = self._still and await in_thread(lambda: freezer.kill(self._cage))
        if not dead:
            log.error("kill.incomplete", processes=freezer.processes(self._cage), hint="the lease is left to run out")
        elif self._lease is not None and self._session.etag is not None:
            try:
                await asyncio.wait_for(self._farewell(self._lease), _FAREWELL_S)
                log.info("session.gone", session=self._session.session)
            except Conflict:
                log.info("session.gone", session=self._session.session, hint="somebody else has ended it before")
            except TimeoutError:
                log.warning("session.unsaid", hint="the bucket does not answer: the lease is left to run out")
        await self._link.close()

    async def _farewell(self, ours: Lease) -> None:
        etag = self._session.etag
        if self._pending is not None:
            etag, ours = await self._definite(self._pending), self._pending.lease
        last = lease.gone(ours, nonce=cas.new_nonce())
        await self._definite(Pending(last, etag, self._now()))


async def main(guard: Callable[[], Awaitable[Guard]], runtime_dir: Path, *, heir: bool) -> int:
    """Run the machine's only guard; answers the exit code. `guard` makes it once the lock is ours.

    An heir (started by an agent that lost its guard) leaves at once when another guard lives. Anybody else waits as a
    stand-in, passes SIGTERM and SIGHUP on to the one that lives, and takes over when it dies.
    """
    path = runtime_dir / view.GUARD_LOCK
    try:
        lock.take(path, wait_s=0.5)
    except lock.Held:
        if heir:
            return 0
        if await StandIn(path).wait():
            return 0
    await (await guard()).run()
    return 0
