"""One tenant on this node: a task that makes true what is wanted of it, step by step, and reports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, assert_never

import structlog

from node.agent import memory
from node.agent.apps import BadApp
from node.agent.custody.errors import CustodyError, Damaged, Lost, OwnedElsewhere, Refused, Unconfirmed
from node.agent.custody.values import Claim
from node.agent.places import Overtaken, Rank
from node.agent.plan import NOT_THE_SPEC, Actual, Step, crashed, failed, fingerprint, plan
from node.agent.ports import Container, RuntimeFailed, Volume
from node.agent.report import Board
from node.agent.settling import Settling
from node.agent.walk import NotHealthy, Parts, Walk, both
from node.api import FENCES, Assignment, TenantReport
from node.bucket.errors import BucketError

log = structlog.get_logger()

# What another node may not suffer from.
GIVES_UP = frozenset({"disk_full", "no_quota", "volume_damaged"})
KILL_AGAIN_S = 1.0


class Tenant:
    """Owns the tenant's walk. Everything here runs on the agent's event loop; one step at a time."""

    def __init__(
        self,
        name: str,
        parts: Parts,
        board: Board,
        session: Callable[[], int],
        on_restored: Callable[[float, int], None] = lambda _s, _b: None,
    ) -> None:
        self.name = name
        self.walk = Walk(name, parts, self._waits)
        self.want: Assignment | None = None
        self.actual = Actual()
        self.frozen = False
        self.restarts = 0
        self._parts = parts
        self._board = board
        self._on_restored = on_restored
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._settling = Settling(name, self._settle, self._settled, self.ousted)
        self._tasks: set[asyncio.Task[None]] = set()
        self.ousting = asyncio.Lock()
        self.assigning = asyncio.Lock()

    # ---- what others tell it

    def assign(self, want: Assignment) -> TenantReport:
        """Take up what is wanted; the same again changes nothing but brings secrets, an older generation is ignored."""
        if self.want is None or want.generation > self.want.generation or (want.secrets and not self.want.secrets):
            self.actual = replace(self.actual, retry_at=0.0, failures=0)
        if self.want is None or want.generation >= self.want.generation:
            self.want = want
            if want.want != "up":
                self.walk.withdraw()
        self.poke()
        return self._board.get(self.name)

    def poke(self) -> None:
        """Look again at what is wanted and what is."""
        self._wake.set()
        if self._task is None and not self._closing:
            self._task = asyncio.create_task(self._run(), name=f"tenant-{self.name}")

    async def close(self) -> None:
        """End the task; containers stay as they are."""
        for task in (self._task, self._settling.task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def worker_ended(self, container: Container) -> None:
        """The engine says that a worker container ended."""
        if not self.walk.is_worker(container):
            return
        ran_s = self.walk.ended()
        if not self.actual.worker:
            return  # it was starting: the walk itself sees that it ended
        self.restarts += 1
        self.actual = crashed(self.actual, ran_s, asyncio.get_running_loop().time())
        why = "it used more memory than its limit" if container.oom_killed else f"exit code {container.exit_code}"
        log.warning("worker ended", tenant=self.name, why=why, ran_s=round(ran_s, 1))
        self._say("starting", "crashed", f"the server of {self.name} ended ({why}) and is started again")
        self._aside(self._after_crash(wait=self.actual.failures <= 1))
        self.poke()

    async def _after_crash(self, *, wait: bool) -> None:
        """Its address may go to another tenant's container: nobody is sent there. A first restart is waited for."""
        await (self.walk.hold() if wait else self.walk.unroute("failed"))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"aside-{self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ousted(self, reason: str = "owned_elsewhere", message: str = "") -> None:
        """Its prefix or its record is somebody else's: stop everything now, and the step under way before it starts
        more."""
        async with self.ousting:
            await self._halt()
            await self.walk.forget()
            await self._settling.drop()
            while True:
                try:
                    await self.walk.kill()
                    break
                except RuntimeFailed as e:
                    log.error("what is another node's still runs here", tenant=self.name, error=str(e))
                    await asyncio.sleep(KILL_AGAIN_S)
            self.actual = replace(self.actual, claimed=False, held=False, worker="")
            self._say("pending", reason, message or f"{self.name} belongs to another node now")
            self.poke()

    def volume_stopped(self) -> None:
        """Its disk takes no more writes since this machine's was full: begin anew from the bucket, which has it all."""
        if self.actual.held and not self.actual.stopped:
            self.actual = replace(self.actual, stopped=True)
            self.poke()

    async def _halt(self) -> None:
        task = self._task
        if task is not None and task is not asyncio.current_task():
            self._task = None
            task.cancel()
            await asyncio.wait({task})

    async def freeze(self, reason: str) -> None:
        """The guard froze this node's tenants: say so instead of letting requests hang."""
        if self.walk.claim is not None and (not self.frozen or reason != self._board.get(self.name).reason):
            self.frozen = True
            await self.walk.unroute(reason)
            why = FENCES.get(reason, "it begins a new session")
            self._say(
                "frozen", reason, f"its node stands still: {why}; {self.name} goes on by itself, there or elsewhere"
            )

    async def thaw(self) -> None:
        """The guard thawed them, or has begun a new session."""
        self._closing = False
        if self.frozen:
            self.frozen = False
            if self.actual.worker and self.want is not None:
                await self.walk.route(self.want)
                self._say("running")
            self.poke()

    async def adopt(self, want: Assignment, claim: Claim, volume: Volume, worker: Container | None) -> None:
        """Take over what an earlier agent of this node left running."""
        self.want = want
        await self.walk.adopt(want, claim, volume, worker)
        made_from = memory.worker(self._parts.runtime_dir, self.name)
        wanted = fingerprint(want.spec, want.restarts)
        if worker is not None and not made_from:
            made_from = wanted if worker.generation == want.generation else "unknown"
        self.actual = replace(
            self.actual,
            claimed=True,
            # What was restored and not confirmed yet is confirmed before its worker starts, as on any walk up.
            held=claim.settled or claim.born,
            worker=made_from if worker is not None else "",
            # The agent before may have died between being told and restarting it.
            settled=0 if worker is None else want.generation if made_from == wanted else worker.generation,
            restore_id=self._parts.custody.restored(self.name),
        )
        self._board.update(self.name, epoch=claim.epoch, data_epoch=claim.data_epoch)
        if worker is not None and self.actual.held:
            await self.walk.route(want)
            if self.actual.settled >= want.generation:
                back = {"rolled_back": True, "reason": "rolled_back"} if made_from != wanted else {}
                self._report_up(want, **back)
        if claim.born:
            self._settling.begin(claim)
        self.poke()

    async def release_now(self) -> str:
        """The node stops: give the tenant up in order. Empty when done, else why it stays on this disk."""
        self._closing = True  # nothing that is wanted of it is done: a server started again would write past its end
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self.walk.claim is None:
            return ""
        try:
            await self._down(purge=False, generation=None)
        except (CustodyError, RuntimeFailed, BucketError) as e:
            return str(e)
        except Exception as e:
            log.exception("release failed", tenant=self.name)  # its neighbours' goes on
            return f"{self.name}: {type(e).__name__}: {e}"
        return ""

    # ---- the loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self.want is None:
                await self._wake.wait()
                continue
            step = "idle" if self.frozen else plan(self.want, self.actual, loop.time())
            if step == "idle":
                await self._wake.wait()
            elif step == "wait":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self.actual.retry_at):
                        await self._wake.wait()
            else:
                try:
                    await self._try(step, self.want)
                except Exception as e:  # of saying what failed: this task must not end unheard
                    log.exception("a failure was not dealt with", tenant=self.name, step=step)
                    self._failed(self.want, "failed", "internal", f"{self.name}: {type(e).__name__}: {e}")

    async def _try(self, step: Step, want: Assignment) -> None:
        """Carry out one step; every way it can fail ends in a report and, where that can help, another try."""
        try:
            await self._take(step, want)
            if step != "worker":  # one that is up again may end again at once: how long it runs decides
                self.actual = replace(self.actual, failures=0)
        except Overtaken:
            log.info("not brought up: something else is wanted by now", tenant=self.name)
        except OwnedElsewhere as e:
            await self.ousted()
            self._failed(want, "pending", e.reason, str(e))
        except (Lost, Damaged) as e:
            self._board.update(self.name, epoch=self.walk.claim.epoch if self.walk.claim else 0)
            await self._settling.drop()
            await self.walk.detach()
            self.actual = replace(self.actual, claimed=False, held=False, worker="", blocked_generation=want.generation)
            self._say("lost" if isinstance(e, Lost) else "damaged", e.reason, str(e), observed=want.generation)
        except (Refused, RuntimeFailed) as e:
            if e.reason in GIVES_UP and await self._gave_up(e.reason, str(e)):
                self._failed(want, "failed", e.reason, str(e))
                return
            if not e.retryable:
                self.actual = replace(self.actual, blocked_generation=want.generation)
            state = e.reason if e.reason in ("lost", "damaged") else "failed"
            self._failed(want, state, e.reason, str(e))
        except Unconfirmed as e:
            # Each try waits by itself for as long as is sensible: when the bucket is back nobody waits for us.
            self.actual = replace(self.actual, failures=0)
            self._failed(want, self._board.get(self.name).state, e.reason, str(e))
        except CustodyError as e:
            self._failed(want, "failed", e.reason, str(e))
        except NotHealthy as e:
            self.actual = replace(self.actual, worker="")
            self._failed(want, "failed", "unhealthy", str(e))
        except BadApp as e:
            self._failed(want, "failed", "bad_app", str(e))
        except BucketError as e:
            self._failed(want, self._board.get(self.name).state, f"bucket_{e.code}", f"{self.name}: {e}")
        except Exception as e:
            log.exception("step failed", tenant=self.name, step=step)
            self._failed(want, "failed", "internal", f"{self.name}: {type(e).__name__}: {e}")

    async def _gave_up(self, reason: str, message: str) -> bool:
        """Give the tenant up if it was claimed and nothing of it runs yet: a node that has room may take it."""
        if self.actual.held or self.walk.claim is None:
            return False
        try:
            await self.walk.stop_worker()  # of one that is born, it runs before its sidecar does
            await self.walk.give_up(reason, message)
            await self.walk.forget()
        except (CustodyError, BucketError, RuntimeFailed) as e:
            log.warning("not given up", tenant=self.name, error=str(e))
            return False
        self.actual = replace(self.actual, claimed=False)
        return True

    def _failed(self, want: Assignment, state: str, reason: str, message: str) -> None:
        self.actual = failed(self.actual, asyncio.get_running_loop().time())
        observed = want.generation if state in ("failed", "lost", "damaged") else None
        self._say(state, reason, message, observed=observed)
        log.warning("step failed", tenant=self.name, reason=reason, message=message)

    async def _take(self, step: Step, want: Assignment) -> None:
        match step:
            case "up":
                await self._up(want)
            case "worker":
                await self.walk.resume()
                if self._settling.task is None and self.walk.claim is not None:
                    self._settling.begin(self.walk.claim)  # at once, if it is settled
                await self._start_worker(want)
            case "restart":
                await self._restart(want)
            case "restore" | "renew":
                if self.actual.claimed:
                    await self._down(purge=False, generation=None)
                await self._up(want)
            case "down":
                await (self._leave(want) if want.moving else self._down(purge=False, generation=want.generation))
            case "purge" | "tombstone":
                await self._down(purge=True, generation=want.generation)
            case "observe":
                await self._observe(want)
            case "idle" | "wait":
                pass
            case _:
                assert_never(step)

    # ---- steps

    async def _up(self, want: Assignment) -> None:
        self._say("claiming", message="")
        await (self.walk.hold() if want.moving else self.walk.unroute("claiming"))
        try:
            await self._raise(want)
        except Exception:
            if want.moving:
                await self.walk.unroute("failed")
            raise

    async def _raise(self, want: Assignment) -> None:
        await self.walk.stop_worker()  # of a walk that failed half-way
        self.actual = replace(self.actual, claimed=True, held=False, worker="", gone=False, stopped=False)
        claim = await self.walk.attach(want, self._progress)
        self.actual = replace(self.actual, restore_id=want.restore.id if want.restore else None)
        self._board.update(self.name, epoch=claim.epoch, data_epoch=claim.data_epoch, restore_id=claim.restore_id)
        for phase in self.walk.phases:
            if phase.name == "restore":
                self._on_restored(phase.duration_s, phase.size_bytes or 0)
        self._say("starting")
        if claim.born:
            # Its worker makes the files: both start, and the record follows when the first bytes are confirmed.
            async with self.walk.turn(want, Rank.WORKER, last=True):
                await both(self._stream(claim), self._start_worker(want))
        else:
            await both(self._hold(want, claim), self.walk.make(want, self._session()))
            async with self.walk.turn(want, Rank.WORKER, last=True):
                await self._start_worker(want)

    async def _hold(self, want: Assignment, claim: Claim) -> None:
        async with self.walk.turn(want, Rank.SIDECAR):
            await self.walk.stream(claim)
        await self.walk.settle(claim, self._progress)
        self.actual = replace(self.actual, held=True)
        self._board.update(self.name, data_epoch=claim.epoch)

    async def _stream(self, claim: Claim) -> None:
        await self.walk.stream(claim)
        self.actual = replace(self.actual, held=True)
        self._settling.begin(claim)

    async def _start_worker(self, want: Assignment) -> None:
        await self.walk.respec(want)
        await self.walk.start(want, self._session())
        await self.walk.route(want)
        self.actual = replace(self.actual, worker=fingerprint(want.spec, want.restarts), settled=want.generation)
        self._report_up(want)
        await self._record(want)

    async def _restart(self, want: Assignment) -> None:
        """Planned: requests wait meanwhile. A new spec that does not get healthy gives way to the old one."""
        self._say("starting", "restart", f"{self.name} is restarted with generation {want.generation}")
        await self.walk.hold()
        await self.walk.drain()
        self.actual = replace(self.actual, worker="")
        await self.walk.stop_worker()
        try:
            await self._start_worker(want)
        except (NotHealthy, RuntimeFailed, BadApp) as e:
            innocent = isinstance(e, RuntimeFailed) and e.reason in NOT_THE_SPEC
            if innocent or want.previous is None or want.previous == want.spec:
                raise
            log.warning("going back to the spec before", tenant=self.name, why=str(e))
            old = want.model_copy(update={"spec": want.previous})
            await self.walk.start(old, self._session())
            await self.walk.route(want)
            self.actual = replace(
                self.actual, worker=fingerprint(want.previous, want.restarts), settled=want.generation
            )
            self._report_up(want, rolled_back=True, reason="rolled_back", message=f"went back to the spec before: {e}")

    async def _leave(self, want: Assignment) -> None:
        """Down for another node to take it up: requests wait here until they can follow."""
        await self.walk.hold(leaving=True)
        try:
            await self._down(purge=False, generation=want.generation, leaving=True)
        except Exception:
            await self.walk.unroute("stopping")
            raise
        self._parts.follow(self.name)

    async def _down(self, *, purge: bool, generation: int | None, leaving: bool = False) -> None:
        if self._board.get(self.name).state != "stopping":  # else it was tried before: why it is not done stays said
            self._say("stopping", message="")
        if not leaving:
            await self.walk.unroute("stopping")
        await self.walk.drain()
        await self._settling.drop()
        self.actual = replace(self.actual, worker="")
        await self.walk.quit_worker()
        if self.want is not None and not purge:
            self._board.update(self.name, epoch=await self.walk.take_back(self.want, self._progress))
        await self._release(purge=purge, generation=generation)
        self.actual = replace(self.actual, claimed=False, held=False, gone=purge, blocked_generation=0)
        if generation is not None:
            self.actual = replace(self.actual, settled=generation)
            if not leaving:
                await self.walk.forget()
        self._board.update(self.name, address="", behind=False, lag_s=None, progress=None)
        self._say("purged" if purge else "released", observed=generation)

    async def _release(self, *, purge: bool, generation: int | None) -> None:
        held = self.walk.claim is not None
        try:
            await self.walk.release(purge=purge, generation=generation)
        except OwnedElsewhere:
            if held or purge:
                raise
            # Another node has it: nothing of it is here to be given up.

    async def _observe(self, want: Assignment) -> None:
        """A generation that needed no other step (labels, retention, access; down already): it is in force."""
        if want.want == "up":
            await self.walk.respec(want)
            await self.walk.route(want)
            self._report_up(want)
            await self._record(want)
        else:
            self._say("purged" if want.want == "purged" else "released", observed=want.generation)
        self.actual = replace(self.actual, settled=want.generation)

    async def _record(self, want: Assignment) -> None:
        """Best effort: the report says which generation is in force, the record is what survives this node."""
        try:
            if self.walk.claim is not None:
                await self._parts.custody.observe(self.walk.claim, want.generation)
        except (CustodyError, BucketError) as e:
            log.warning("generation not recorded", tenant=self.name, error=str(e))

    async def _settle(self, claim: Claim) -> None:
        await self.walk.settle(claim, self._progress)

    def _settled(self, claim: Claim) -> None:
        self._board.update(self.name, data_epoch=claim.epoch, warnings=self.walk.told(), progress=None)

    # ---- reports

    def _report_up(self, want: Assignment, **more: Any) -> None:
        changes = {"reason": "", "message": "", "rolled_back": False, **more}
        self._board.update(
            self.name,
            state="running",
            observed_generation=want.generation,
            restarts=want.restarts,
            address=self.walk.address,
            phases=tuple(self.walk.phases),
            warnings=self.walk.told(),
            progress=None,
            **changes,
        )

    def _progress(self, phase: str, fraction: float | None) -> None:
        """From any thread: a restore's progress, for whoever watches."""

        state = "restoring" if phase == "restore" else self._board.get(self.name).state
        self._loop.call_soon_threadsafe(lambda: self._board.update(self.name, state=state, progress=fraction))

    def _waits(self, before: int | None) -> None:
        """For its turn among the tenants that are brought up here; None: it has come."""
        state = self._board.get(self.name).state
        if before is None:
            self._say(state)
        else:
            self._say(state, "its_turn", f"{self.name} waits for its turn to come up here; before it: {before}")

    def _say(self, state: str, reason: str = "", message: str | None = None, observed: int | None = None) -> None:
        changes: dict[str, Any] = {"state": state, "reason": reason}
        if message is not None:
            changes["message"] = message
        elif not reason:
            changes["message"] = ""
        if observed is not None:
            changes["observed_generation"] = observed
        self._board.update(self.name, **changes)
