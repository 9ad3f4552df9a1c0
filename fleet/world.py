"""What the controller knows, in memory. All of it can be read again from the bucket and the agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fleet.core.model import Evidence, Is, Machine, Sent, evidence
from node.api import NodeReport, TenantReport
from node.bucket.cas import Held
from node.bucket.records import Cordons, Lease, Owner, Spec


class World:
    """Lives on the event loop's thread. Whatever changes marks its tenants `dirty` and calls `on_dirty`.

    `etags` are those of the records as last read or written, by key; `written_at` is when this process wrote one, so
    that an older read does not undo it. `doubt_until`: how long a write that was given up undecided may still land.
    `at_start` are the tenants that were there when this controller began; `revoked` the session that it ended, by node.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.specs: dict[str, Spec] = {}
        self.owners: dict[str, Owner] = {}
        self.leases: dict[str, Lease] = {}
        self.machines: dict[str, Machine] = {}
        self.nodes: dict[str, NodeReport] = {}
        self.reports: dict[str, dict[str, TenantReport]] = {}
        self.sent: dict[str, Sent] = {}
        self.sending: dict[str, Sent] = {}
        self.emptied: dict[str, int] = {}
        self.notes: dict[str, tuple[str, str]] = {}
        self.rollbacks: dict[str, str] = {}
        self.unreachable: dict[str, str] = {}
        self.overdue: set[str] = set()
        self.revoked: dict[str, int] = {}
        self.cordons: Cordons = Cordons(nonce="")
        self.etags: dict[str, str] = {}
        self.written_at: dict[str, float] = {}
        self.dirty: set[str] = set()
        self.doubt_until = 0.0
        self.loaded = False
        self.at_start: frozenset[str] = frozenset()
        self.on_dirty: Callable[[], None] = lambda: None
        self.is_ = Is(self.machines, self.owners, self.reports, self.sent, self.emptied, self.sending)
        self._waiters: dict[str, set[asyncio.Event]] = {}

    def touch(self, *tenants: str) -> None:
        """These tenants are to be looked at."""
        self.dirty.update(tenants)
        for tenant in tenants:
            for waiter in self._waiters.get(tenant, ()):
                waiter.set()
        self.on_dirty()

    def touch_all(self) -> None:
        """Every tenant is to be looked at."""
        self.touch(*self.specs)

    def evidence(self, tenant: str) -> Evidence:
        """The best that is known of a tenant."""
        return evidence(tenant, self.is_)

    def set_spec(self, key: str, held: Held[Spec], *, written: bool = False) -> None:
        """A spec as read or written."""
        old = self.specs.get(held.record.tenant)
        if old is not None and old.generation > held.record.generation:
            return
        self._keep(key, held.etag, written)
        self.specs[held.record.tenant] = held.record
        if old is None or old.generation != held.record.generation:
            self.notes.pop(held.record.tenant, None)
            self.emptied.pop(held.record.tenant, None)
        self.touch(held.record.tenant)

    def set_owner(self, key: str, held: Held[Owner]) -> None:
        """An owner record as read."""
        self._keep(key, held.etag, written=False)
        self.owners[held.record.tenant] = held.record
        self.touch(held.record.tenant)

    def set_lease(self, key: str, held: Held[Lease]) -> None:
        """A machine's lease as read or written. One that was read before what is known changes nothing."""
        old = self.leases.get(held.record.node)
        if old is not None and _age(held.record) < _age(old):
            return
        self._keep(key, held.etag, written=False)
        self.leases[held.record.node] = held.record
        self._refresh(held.record.node)

    def set_cordons(self, key: str, held: Held[Cordons]) -> None:
        """What operators closed, as read or written."""
        self._keep(key, held.etag, written=False)
        before, self.cordons = self.cordons, held.record
        for node in before.nodes.keys() | held.record.nodes.keys():
            self._refresh(node)

    def node_reported(self, report: NodeReport) -> None:
        """An agent said what is. Only tenants whose report changed are looked at again."""
        node = report.node
        resync = node in self.unreachable or node not in self.nodes
        old = {t.tenant for t in self.nodes[node].tenants} if node in self.nodes else set()
        new = {t.tenant: t for t in report.tenants}
        self.nodes[node] = report
        self.unreachable.pop(node, None)
        if resync:
            self._forget_sent(node)
        changed = [t for t in new if self.reports.get(t, {}).get(node) != new[t]]
        for tenant in changed:
            self.reports.setdefault(tenant, {})[node] = new[tenant]
        for tenant in old - new.keys():
            self.reports.get(tenant, {}).pop(node, None)
        self._refresh(node)
        self.touch(*changed, *(old - new.keys()))

    def set_report(self, node: str, report: TenantReport) -> None:
        """What an agent answered to an assignment; the next node report replaces it."""
        self.reports.setdefault(report.tenant, {})[node] = report
        self.touch(report.tenant)

    def node_unreachable(self, node: str, why: str) -> None:
        """An agent does not answer: what it said last is kept."""
        known = node in self.unreachable
        self.unreachable[node] = why
        if not known:
            self._refresh(node)

    def lease_overdue(self, node: str, overdue: bool) -> None:
        """Whether a machine's lease was not renewed in time."""
        if overdue != (node in self.overdue):
            (self.overdue.add if overdue else self.overdue.discard)(node)
            self._refresh(node)

    def mark_sending(self, tenant: str, sent: Sent) -> None:
        """An agent is being told: from now on it may know."""
        self.sending[tenant] = sent

    def not_sent(self, tenant: str) -> None:
        """What was begun never reached an agent, or the agent refused it."""
        self.sending.pop(tenant, None)

    def mark_sent(self, tenant: str, sent: Sent) -> None:
        """An agent acknowledged an assignment."""
        self.sending.pop(tenant, None)
        self.sent[tenant] = sent
        self.notes.pop(tenant, None)

    def note(self, tenant: str, reason: str, message: str) -> None:
        """Why the controller can't go on with a tenant."""
        if self.notes.get(tenant) != (reason, message):
            self.notes[tenant] = (reason, message)
            for waiter in self._waiters.get(tenant, ()):
                waiter.set()

    async def changed(self, tenant: str, timeout_s: float) -> None:
        """Wait until something about a tenant may have changed, or for so long."""
        waiter = asyncio.Event()
        waiters = self._waiters.setdefault(tenant, set())
        waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.wait()
        except TimeoutError:
            pass
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop(tenant, None)

    def _keep(self, key: str, etag: str, written: bool) -> None:
        self.etags[key] = etag
        if written:
            self.written_at[key] = time.monotonic()

    def _forget_sent(self, node: str) -> None:
        """An agent that was away may have forgotten what it was told: it is told again."""
        for told in (self.sent, self.sending):
            for tenant in [t for t, sent in told.items() if sent.node == node]:
                del told[tenant]
                self.touch(tenant)

    def _refresh(self, node: str) -> None:
        lease = self.leases.get(node)
        if lease is None:
            return
        report = self.nodes.get(node)
        cordon = self.cordons.nodes.get(node)
        machine = Machine(
            name=node,
            session=max(lease.session, report.session if report else 0),
            state=lease.state if report is None or report.session <= lease.session else "active",
            mode=lease.mode,
            capacity=report.capacity if report else lease.capacity,
            labels=lease.labels,
            reachable=report is not None and node not in self.unreachable,
            fenced=report.fenced if report else False,
            overdue=node in self.overdue and lease.state != "gone",
            cordoned=cordon is not None,
            drain=cordon.at_once if cordon is not None and cordon.state == "draining" else 0,
        )
        if self.machines.get(node) != machine:
            self.machines[node] = machine
            self.touch_all()


def _age(lease: Lease) -> tuple[int, bool, int]:
    """Grows with every write of a lease: nothing follows in a session that is gone but the next session."""
    return lease.session, lease.state == "gone", lease.seq
