"""Finds other nodes' tenants for this node's gateway: asked when a request has no route, and watched while in use.

What it costs, in requests to the bucket: two reads when a tenant is first asked for; then, while anybody uses it by way
of this node, its owner record every OWNER_EVERY_S, and the lease of each node in use every LEASE_EVERY_S.
A tenant that moved is noticed sooner: its old node's gateway says so, and the record is read at once. Answers that lead
nowhere are kept for a moment, and limited by `Budget`, so that nobody can make this node read the bucket without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import structlog

from node.agent.budget import Budget
from node.agent.gateway.errors import GatewayFailed
from node.agent.gateway.peers import locate
from node.agent.gateway.table import Peer
from node.agent.ports import RuntimeFailed
from node.agent.whereabouts import PASSING, Absent, Elsewhere, Whereabouts, judge
from node.bucket import cas, keys, liveness
from node.bucket.errors import BucketError
from node.bucket.records import Lease, Owner
from node.bucket.store import Store

log = structlog.get_logger()

T = TypeVar("T")
P = ParamSpec("P")

LEASE_EVERY_S = 2.0
OWNER_EVERY_S = 15.0
USED_EVERY_S = 5.0
DOWN_S, PASSING_S = 2.0, 0.5
REMEMBERED = 10_000
DOUBT_S = 0.3
READERS = 4
# A planned move: requests wait as long as the gateway holds them.
FOLLOW_S = 20.0
FOLLOW_FIRST_S, FOLLOW_LONGEST_S = 0.02, 0.2


class Reaching(Protocol):
    """What of the gateway the finder uses. Blocking; raises GatewayFailed and RuntimeFailed."""

    def reach(self, tenant: str, peer: Peer) -> bool:
        """Requests go to another node's gateway, unless the tenant has a route here: then False."""

    def lose(self, tenant: str) -> None:
        """It is not known any more which other node has the tenant."""

    def used(self) -> dict[str, int]:
        """Other nodes' tenants that were asked for within the last minute."""

    def cut(self, peer: Peer) -> int:
        """End every request that is with another node's gateway."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What was last found of a tenant, and where its node's gateway is; `at` is when that look began."""

    found: Whereabouts
    peer: Peer | None
    at: float


class Finder:
    """Runs on the agent's event loop; reads and the gateway's own work in a few threads of its own."""

    def __init__(
        self, store: Store, gateway: Reaching, me: str, my_url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._me, self._my_url = me, my_url
        self._clock = clock
        self._budget = Budget(clock, lambda: {keys.name_of(entry.key) for entry in store.list(keys.OWNERS)})
        self._known: dict[str, _Known] = {}
        self._flights: dict[str, asyncio.Task[Whereabouts]] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(READERS, "finder")

    async def ask(self, tenant: str) -> Whereabouts:
        """Where a tenant without a route is; if Elsewhere, requests go there from now on."""
        known = self._known.get(tenant)
        if known is not None and self._clock() < known.at + _good_for_s(known.found):
            return known.found
        if tenant not in self._flights:
            try:
                allowed = await self._in(self._budget.allows, tenant)
            except BucketError:
                return Absent("bucket_unreachable")
            if not allowed:
                return known.found if known is not None else Absent("too_busy")
        return await self._look(tenant)

    async def doubt(self, tenant: str) -> None:
        """Its node's gateway does not have it, or does not answer: look again, soon after the last look."""
        known = self._known.get(tenant)
        if known is not None and isinstance(known.found, Elsewhere):
            await asyncio.sleep(max(0.0, known.at + DOUBT_S - self._clock()))
            await self._look(tenant)

    def follow(self, tenant: str) -> None:
        """The tenant has left for another node: its requests are held until that one has it, or for as long as it is
        sensible to wait."""
        if tenant not in self._following:
            task = self._following[tenant] = asyncio.create_task(self._follow(tenant), name=f"follow-{tenant}")
            task.add_done_callback(lambda _: self._following.pop(tenant, None))

    async def keep(self) -> None:
        """Watch the tenants that are in use, for ever."""
        looked = 0.0
        while True:
            await asyncio.sleep(LEASE_EVERY_S)
            if not self._away():
                continue
            try:
                if self._clock() >= looked + USED_EVERY_S:
                    looked = self._clock()
                    await self._forget_unused()
                await self._check()
            except (BucketError, GatewayFailed, RuntimeFailed) as e:
                log.warning("other nodes' tenants not checked", error=str(e))

    async def close(self) -> None:
        """End what is under way."""
        tasks = [*self._flights.values(), *self._following.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # ---- looking

    async def _look(self, tenant: str) -> Whereabouts:
        """One look at a time for each tenant, whoever wants to know."""
        flight = self._flights.get(tenant)
        if flight is None:
            flight = self._flights[tenant] = asyncio.create_task(self._find(tenant), name=f"find-{tenant}")
            flight.add_done_callback(lambda _: self._flights.pop(tenant, None))
        return await asyncio.shield(flight)

    async def _find(self, tenant: str) -> Whereabouts:
        began = self._clock()
        try:
            found, peer = await self._in(self._read, tenant)
        except BucketError as e:
            log.warning("not known where a tenant is", tenant=tenant, error=str(e))
            return self._keep_unsure(tenant, Absent("bucket_unreachable"), began)
        try:
            if peer is not None:
                await self._in(self._gateway.reach, tenant, peer)
            else:
                await self._in(self._gateway.lose, tenant)
        except (GatewayFailed, RuntimeFailed) as e:
            log.warning("the gateway was not told where a tenant is", tenant=tenant, error=str(e))
            return self._keep_unsure(tenant, Absent("gateway"), began)
        self._keep(tenant, _Known(found, peer, began))
        return found

    def _read(self, tenant: str) -> tuple[Whereabouts, Peer | None]:
        owner = cas.read(self._store, keys.owner(tenant), Owner)
        record = owner.record if owner is not None else None
        other = record is not None and record.node != self._me and record.state in ("claimed", "running")
        lease = self._lease(record.node) if record is not None and other else None
        found = judge(record, lease, me=self._me, my_url=self._my_url)
        if _good_for_s(found) != DOWN_S:
            self._budget.refund()
        if not isinstance(found, Elsewhere):
            return found, None
        peer = locate(found.url)
        return (found, peer) if peer is not None else (Absent("no_gateway"), None)

    def _lease(self, node: str) -> Lease | None:
        held = cas.read(self._store, keys.node(node), Lease)
        return held.record if held is not None else None

    def _keep(self, tenant: str, known: _Known) -> None:
        self._known.pop(tenant, None)
        self._known[tenant] = known
        while len(self._known) > REMEMBERED:
            oldest = next((t for t, k in self._known.items() if not isinstance(k.found, Elsewhere)), None)
            if oldest is None:
                break
            del self._known[oldest]

    def _keep_unsure(self, tenant: str, answer: Absent, began: float) -> Absent:
        """What is known of another node stays: unknown is not no."""
        known = self._known.get(tenant)
        if known is None or not isinstance(known.found, Elsewhere):
            self._keep(tenant, _Known(answer, None, began))
        return answer

    async def _follow(self, tenant: str) -> None:
        until, wait_s = self._clock() + FOLLOW_S, FOLLOW_FIRST_S
        while self._clock() < until:
            try:
                found, peer = await self._in(self._read, tenant)
                if peer is not None:
                    began = self._clock()
                    await self._in(self._gateway.reach, tenant, peer)
                    self._keep(tenant, _Known(found, peer, began))
                    return
            except (BucketError, GatewayFailed, RuntimeFailed) as e:
                log.warning("not known where a tenant went", tenant=tenant, error=str(e))
            await asyncio.sleep(wait_s)
            wait_s = min(FOLLOW_LONGEST_S, wait_s * 1.5)
        with contextlib.suppress(GatewayFailed, RuntimeFailed):
            await self._in(self._gateway.lose, tenant)

    # ---- watching

    def _away(self) -> dict[str, tuple[Elsewhere, _Known]]:
        return {t: (k.found, k) for t, k in self._known.items() if isinstance(k.found, Elsewhere)}

    async def _forget_unused(self) -> None:
        began = self._clock()
        used = await self._in(self._gateway.used)
        for tenant, (_, known) in self._away().items():
            if tenant not in used and known.at + USED_EVERY_S < began:
                await self._in(self._gateway.lose, tenant)
                if self._known.get(tenant) is known:
                    del self._known[tenant]

    async def _check(self) -> None:
        """Read the lease of each node in use, and owner records that it says are out of date, or that are old."""
        away = self._away()
        nodes = sorted({found.node for found, _ in away.values()})
        read = await asyncio.gather(*(self._in(self._lease, node) for node in nodes))
        leases = dict(zip(nodes, read, strict=True))
        again, dead = [], {}
        for tenant, (found, known) in away.items():
            lease = leases[found.node]
            old = self._clock() >= known.at + OWNER_EVERY_S
            over = lease is None or liveness.session_over(lease, found.session)
            if old or over or (lease is not None and lease.gateway_url != found.url):
                again.append(tenant)
            if lease is not None and lease.state == "gone" and known.peer is not None:
                dead[found.node] = known.peer
        await asyncio.gather(*(self._look(tenant) for tenant in again))
        for node, peer in dead.items():  # nobody is sent there any more: who waits for it is told so
            if count := await self._in(self._gateway.cut, peer):
                log.warning("requests cut: their node's session is over", node=node, requests=count)

    async def _in(self, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)


def _good_for_s(found: Whereabouts) -> float:
    """How long an answer that leads nowhere stands. One that names a node is in the map: whoever asks missed it."""
    match found:
        case Elsewhere():
            return 0.0
        case Absent(reason) if reason in PASSING:
            return PASSING_S
        case _:
            return DOWN_S
