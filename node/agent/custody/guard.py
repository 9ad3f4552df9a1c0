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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from node import lock
from node.agent.custody import fleetfile, freezer, lease, sessionfile, view
from node.agent.custody import session as rules
from node.agent.custody.keeper import Keeper, SpawnAgent
from node.agent.custody.lease import Machine
from node.agent.custody.linkserver import LinkServer
from node.agent.custody.registrar import Registrar
from node.agent.custody.session import Mode, Session
from node.agent.custody.sessionfile import Pending, Saved
from node.agent.custody.standin import StandIn
from node.agent.custody.threads import in_thread
from node.agent.ports import Freezer
from node.bucket.errors import BucketError, Conflict, Unsupported
from node.bucket.records import Lease
from node.bucket.store import Store

log = structlog.get_logger()

_LOOK_S = 0.5
_REFREEZE_S = 0.05
_FAREWELL_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the guard waits, seconds: for an agent that says nothing until it is killed, and until the machine is
    fenced as none of its heirs spoke either; for one that releases without progress."""

    agent_silence_s: float = 20.0
    agent_fence_s: float = 120.0
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
        store: Callable[[], Store],
        cage: Freezer,
        place: Place,
        spawn_agent: SpawnAgent,
        *,
        patience: Patience | None = None,
        now: Callable[[], float] = view.boottime,
    ) -> None:
        """`store` opens the bucket, from a thread. `mode` is for `fleet.json` if this machine founds the fleet."""
        self._registrar = Registrar(machine, mode, store, place.state_dir)
        self._cage = cage
        self._place = place
        self._now = now
        self._patience = patience or Patience()
        self._boot = view.boot_id()
        self._fleet_id = ""
        self._session = Session(node=machine.node, ttl_s=15.0, margin_s=3.0, mode=mode)
        self._lease: Lease | None = None
        self._pending: Pending | None = None
        self._still: bool | None = None  # None: whatever an earlier guard left
        self._attempted = 0.0
        self._looked = now()
        self._troubles = 0
        self._changed = asyncio.Event()
        self._progress = (0, time.monotonic())
        self._refused: Exception | None = None
        self._link = LinkServer(place.runtime_dir, lambda: view.view_of(self._session, self._boot), self._hear)
        self._keeper = Keeper(
            place.runtime_dir / view.AGENT_LOCK, spawn_agent, silence_s=self._patience.agent_silence_s
        )

    async def run(self) -> None:
        """Guard until asked to leave. Raises fleetfile.AnotherFleet or Unsupported if the bucket cannot be used."""
        self._resume()
        self._apply()
        await self._link.start()
        self._on_signals()
        tasks = [asyncio.create_task(self._hold()), asyncio.create_task(self._keeper.run())]
        try:
            while self._session.state != "gone" and self._refused is None:
                self._look()
                self._apply()
                self._check_release()
                for task in tasks:
                    if task.done() and self._refused is None:
                        task.result()  # a defect: the next guard goes on, this one would never renew again
                await self._sleep(self._next_look())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._refused is not None:
            await self._keeper.end()  # it would start a guard again and again
            await self._link.close()
            raise self._refused
        await self._leave()

    # ---- what happens

    def _resume(self) -> None:
        saved = sessionfile.load(self._place.runtime_dir)
        if saved is None or saved.session.node != self._session.node:
            return
        if rules.may_resume(saved.session, same_boot=saved.boot_id == self._boot, now=self._now()):
            self._session, self._lease, self._pending = saved.session, saved.lease, saved.pending
            self._fleet_id = saved.fleet_id
            self._attempted = saved.session.started
            log.info("session.resumed", session=self._session.session, seq=self._session.seq)

    def _look(self) -> None:
        """Freeze if it is time, before anything else is done or believed."""
        now, asked = self._now(), self._pending.started if self._pending else None
        self._move(rules.tick(self._session, now=now, looked=self._looked, asked=asked))
        self._looked = now
        if self._keeper.silent_s() >= self._patience.agent_fence_s:
            self._move(rules.silent(self._session, now=now))

    def _hear(self, message: dict[str, Any]) -> None:
        self._look()
        self._keeper.heard()
        self._move(rules.heard(self._session, now=self._now()))
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
        saved = Saved(self._boot, self._fleet_id, self._session, self._lease, self._pending)
        try:
            sessionfile.save(self._place.runtime_dir, saved)
        except OSError as e:
            log.warning("session.unsaved", error=str(e), hint="a guard that comes back begins a new session")
            sessionfile.forget(self._place.runtime_dir)

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
                elif self._session.state == "hung":
                    await asyncio.sleep(_LOOK_S)  # a lease that is renewed would keep others from helping
                else:
                    await self._renew()
                self._troubles = 0
            except (fleetfile.AnotherFleet, Unsupported) as e:
                if self._session.state == "starting":
                    self._refused = e
                    self._changed.set()
                    return
                log.warning("bucket.unfit", error=str(e))
                await asyncio.sleep(self._session.ttl_s)
            except BucketError as e:
                self._troubles += 1
                if self._troubles & (self._troubles - 1) == 0:  # 1, 2, 4, 8 …: a long outage is not a long log
                    log.warning("bucket.failed", code=e.code, error=str(e), times=self._troubles)
                await asyncio.sleep(min(1.0, self._session.ttl_s / 6))

    async def _begin(self) -> None:
        """A new session: nothing of an earlier one may run on, so freeze (and kill) comes before the write."""
        while not self._still:
            self._apply()
            await asyncio.sleep(_REFREEZE_S)
        while self._session.state == "revoked" and not await in_thread(lambda: freezer.kill(self._cage)):
            log.error("kill.incomplete", processes=freezer.processes(self._cage))
        plan = await self._registrar.plan(self._session)
        if self._session.state not in ("starting", "revoked"):
            return  # asked to leave meanwhile
        self._session, self._pending, self._fleet_id = plan.session, None, plan.fleet_id
        sent = replace(plan.write, started=self._now())
        try:
            etag = await self._registrar.definite(sent, ttl_s=plan.session.ttl_s)
        except Conflict:
            return  # somebody else wrote it: read it again
        if self._session.state == "gone":
            return
        self._lease, self._attempted = sent.lease, sent.started
        self._move(
            rules.begun(self._session, number=sent.lease.session, etag=etag, started=sent.started, now=self._now())
        )

    async def _renew(self) -> None:
        if self._pending is None:
            wait = lease.renew_at(self._session, attempted=self._attempted) - self._now()
            if wait > 0:
                await asyncio.sleep(min(wait, _LOOK_S))
                return
            await self._prepare_renewal()
        sent = self._pending
        if sent is None:
            return
        self._attempted = self._now()
        try:
            etag = await self._registrar.definite(sent, ttl_s=self._session.ttl_s)
        except Conflict:
            self._pending = None
            if self._session.state != "gone":
                log.warning("session.lost", session=self._session.session, hint="its lease has somebody else's write")
                self._move(rules.lost(self._session))
            return
        self._look()
        self._pending, self._lease = None, sent.lease
        said = sent.lease
        self._move(
            rules.renewed(self._session, seq=said.seq, etag=etag, mode=said.mode, started=sent.started, now=self._now())
        )

    async def _prepare_renewal(self) -> None:
        """Write the next renewal down before it is sent: whoever comes after this process repeats just that."""
        if self._lease is None:
            return
        record, mode = await self._registrar.next(self._session, self._lease)
        if self._session.state in ("starting", "revoked", "gone"):
            return
        began = self._now()
        self._pending = Pending(record, self._session.etag, began)
        self._move(rules.switched(self._session, mode=mode, started=began))
        self._save()

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
                farewell = self._registrar.farewell(self._session, self._lease, self._pending)
                await asyncio.wait_for(farewell, _FAREWELL_S)
                log.info("session.gone", session=self._session.session)
            except Conflict:
                log.info("session.gone", session=self._session.session, hint="somebody else has ended it before")
            except TimeoutError:
                log.warning("session.unsaid", hint="the bucket does not answer: the lease is left to run out")
        sessionfile.forget(self._place.runtime_dir)
        await self._link.close()


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
