"""An agent without containers: it speaks the agent's API over HTTP and keeps owner records as a real one does.

`python fakeagent.py NODE PORT` runs it against the bucket of the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from node.api import Assignment, NodeReport, Points, PurgeReport, PurgeRequest, TenantReport
from node.bucket import cas, keys
from node.bucket.errors import BucketError, Conflict
from node.bucket.records import Capacity, Lease, Owner
from node.bucket.store import Store

CAPACITY = Capacity(memory_bytes=64 << 30, cpus=64.0, disk_bytes=1 << 40)
# Longer than a tenant of the slowest test takes to leave and to arrive.
SLOW_S = 1.0


class FakeAgent:
    """One node. `behaviour` maps a tenant to `bad` (never healthy), `refuse` (409), `hang` (never answers), `slow`
    (does it at once and answers later). `heard` is called with each assignment as it comes in."""

    def __init__(
        self, node, store: Store, *, token, step_s=0.0, capacity=CAPACITY, ttl_s=15.0, margin_s=3.0, labels=None
    ):
        self.node, self.store, self.token, self.step_s, self.capacity = node, store, token, step_s, capacity
        self.url = ""
        self.session = 1
        self.version = 0
        self.behaviour: dict[str, str] = {}
        self.bad_images: set[str] = set()
        self.reports: dict[str, TenantReport] = {}
        self.assigned: list[Assignment] = []
        self.heard: Callable[[Assignment], None] = lambda want: None
        self.wants: dict[str, str] = {}
        self.purged: list[str] = []
        self._changed = asyncio.Event()
        self.closing = False
        self.ttl_s, self.margin_s, self.labels = ttl_s, margin_s, labels or {}
        self.lease = None
        self.silent = threading.Event()
        self._tasks: dict[str, asyncio.Task] = {}
        self.app = self._build()

    def join(self, url, state="active"):
        self.url = url
        key = keys.node(self.node)
        held = cas.read(self.store, key, Lease)
        if held is not None:
            self.session = held.record.session + 1
        lease = Lease(
            nonce=cas.new_nonce(), node=self.node, session=self.session, seq=1, ttl_s=self.ttl_s,
            margin_s=self.margin_s, url=url, state=state, mode="shared", capacity=self.capacity, labels=self.labels,
        )  # fmt: skip
        self.lease = cas.write(self.store, key, lease, held.etag if held else None, give_up=cas.backoff())
        self.keep()

    def keep(self):
        """Renew from now on."""
        threading.Thread(target=self._keep, name=f"lease:{self.node}", daemon=True).start()

    def renew(self):
        """Write the lease once more. Raises Conflict when somebody ended the session."""
        record = self.lease.record
        after = record.model_copy(update={"seq": record.seq + 1, "nonce": cas.new_nonce()})
        self.lease = cas.write(self.store, keys.node(self.node), after, self.lease.etag, give_up=cas.backoff())

    def _keep(self):
        """Renew until the session is over, or the machine is cut off from the bucket (`silent`)."""
        while not self.silent.wait(self.ttl_s / 3):
            try:
                self.renew()
            except Conflict:
                return
            except BucketError:
                continue

    def report(self, tenant, **changes):
        old = self.reports.get(tenant) or TenantReport(tenant=tenant, state="pending")
        self.reports[tenant] = old.model_copy(update={"since": time.time(), **changes})
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def forget(self):
        """Lose what it was told."""
        self.reports.clear()
        self.assigned.clear()
        self.wants.clear()
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self):
        """End the long polls, so that the server can stop; nothing is written any more."""
        self.silent.set()
        self.closing = True
        self._changed.set()

    def _own(self, tenant, **changes):
        """CAS the tenant's owner record."""
        key = keys.owner(tenant)
        held = cas.read(self.store, key, Owner)
        if held is None:
            record = Owner(
                nonce=cas.new_nonce(), tenant=tenant, epoch=1, node=self.node, session=self.session, state="claimed",
                data_epoch=0, observed_generation=0,
            ).model_copy(update=changes)  # fmt: skip
        else:
            record = held.record.model_copy(update={"nonce": cas.new_nonce(), **changes})
        return cas.write(self.store, key, record, held.etag if held else None, give_up=cas.backoff()).record

    async def _walk(self, want: Assignment):
        tenant = want.tenant
        try:
            await asyncio.to_thread(self._record_of, want)
            if want.want == "up":
                await self._up(want)
            elif want.want == "down":
                await self._down(want, "released")
            else:
                await self._down(want, "purged")
        except Exception as e:  # noqa: BLE001 - shown as a failure of the tenant
            self.report(tenant, state="failed", reason="error", message=repr(e))

    def _record_of(self, want):
        return cas.read(self.store, keys.owner(want.tenant), Owner)

    async def _up(self, want: Assignment):
        tenant = want.tenant
        self.report(tenant, state="claiming")
        await asyncio.sleep(self.step_s)
        held = await asyncio.to_thread(self._record_of, want)
        changes = {"state": "claimed", "node": self.node, "session": self.session}
        if held is not None:
            changes["epoch"] = held.record.epoch + (held.record.state == "purged" or held.record.node != self.node)
        owner = await asyncio.to_thread(lambda: self._own(tenant, **changes))
        self.report(tenant, state="starting", epoch=owner.epoch, data_epoch=owner.data_epoch)
        await asyncio.sleep(self.step_s)
        bad = self.behaviour.get(tenant) == "bad" or want.spec.image in self.bad_images
        if bad and want.previous is None:
            self.report(tenant, state="failed", reason="unhealthy", message="it did not get healthy",
                        observed_generation=want.generation)  # fmt: skip
            return
        owner = await asyncio.to_thread(
            lambda: self._own(
                tenant,
                state="running",
                data_epoch=owner.epoch,
                observed_generation=want.generation,
                restore_id=want.restore.id if want.restore else None,
            )
        )
        self.report(
            tenant, state="running", reason="", message="", epoch=owner.epoch, data_epoch=owner.epoch,
            observed_generation=want.generation, rolled_back=bad, address="127.0.0.1:1",
        )  # fmt: skip

    async def _down(self, want: Assignment, to):
        tenant = want.tenant
        self.report(tenant, state="stopping")
        await asyncio.sleep(self.step_s)
        owner = await asyncio.to_thread(
            lambda: self._own(
                tenant, state=to, node=self.node, session=self.session, observed_generation=want.generation
            )
        )
        self.report(tenant, state=to, epoch=owner.epoch, observed_generation=want.generation, rolled_back=False)

    async def _assign(self, tenant: str, want: Assignment) -> TenantReport:
        behaviour = self.behaviour.get(tenant)
        if behaviour == "hang":
            await asyncio.sleep(3600)
        if behaviour == "refuse":
            raise HTTPException(409, "refused")
        before = self.wants.get(tenant)
        self.assigned.append(want)
        self.heard(want)
        self.wants[tenant] = want.want
        if tenant not in self.reports:
            self.report(tenant)
        known = self.reports[tenant]
        settled = known.observed_generation >= want.generation and known.state in ("running", "released", "purged")
        if not settled or before != want.want:
            old = self._tasks.get(tenant)

            async def after():
                if old is not None:
                    await asyncio.wait([old])
                await self._walk(want)

            self._tasks[tenant] = asyncio.create_task(after())
        if behaviour == "slow":
            await asyncio.sleep(SLOW_S)
        return self.reports[tenant]

    def _build(self):
        app = FastAPI()

        @app.middleware("http")
        async def token(request: Request, call):
            if request.headers.get("authorization") != f"Bearer {self.token}":
                return JSONResponse({"type": "urn:fleet:unauthorized", "title": "no", "status": 401}, 401)
            return await call(request)

        @app.put("/v1/tenants/{tenant}", status_code=202)
        async def assign(tenant: str, want: Assignment) -> TenantReport:
            return await self._assign(tenant, want)

        @app.get("/v1/state")
        async def state(version: int = -1, wait: float = 0) -> NodeReport:
            if self.version <= version and wait > 0 and not self.closing:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
            return NodeReport(
                node=self.node,
                session=self.session,
                version=self.version,
                capacity=self.capacity,
                gateway_url="http://127.0.0.1:7080",
                tenants=tuple(self.reports.values()),
            )

        @app.get("/v1/tenants/{tenant}/points")
        async def points(tenant: str) -> Points:
            return Points(tenant=tenant, points=())

        @app.get("/v1/tenants/{tenant}/logs")
        async def logs(tenant: str, container: str = "worker"):
            return StreamingResponse(iter([f"hello from {container} of {tenant}\n".encode()]), media_type="text/plain")

        @app.post("/v1/purge/{tenant}")
        async def purge(tenant: str, request: PurgeRequest) -> PurgeReport:
            self.purged.append(tenant)
            return PurgeReport(deleted=0, done=True)

        return app


def main(node, port):
    from node.bucket.s3 import Location, S3Store
    from node.settings import load

    settings = load()
    agent = FakeAgent(
        node,
        S3Store(Location.of(settings)),
        token=settings.token[0].get_secret_value(),
        step_s=float(os.environ.get("STEP_S", "0.02")),
    )
    agent.join(f"http://127.0.0.1:{port}")
    uvicorn.run(agent.app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
