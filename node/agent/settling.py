"""The confirmation of a claim's first snapshots, beside the tenant's other steps: tried until its outcome is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from node.agent.custody.errors import CustodyError, OwnedElsewhere
from node.agent.custody.values import Claim
from node.bucket.errors import BucketError

log = structlog.get_logger()

AGAIN_S = 1.0


class Settling:
    """At most one at a time. `settle` confirms; `done` hears of it, `ousted` that the tenant is another node's."""

    def __init__(
        self,
        tenant: str,
        settle: Callable[[Claim], Awaitable[None]],
        done: Callable[[Claim], None],
        ousted: Callable[[], Awaitable[None]],
    ) -> None:
        self._tenant = tenant
        self._settle = settle
        self._done = done
        self._ousted = ousted
        self.task: asyncio.Task[None] | None = None

    def begin(self, claim: Claim) -> None:
        """Start it, in the background."""
        self.task = asyncio.create_task(self._until_known(claim), name=f"settle-{self._tenant}")

    async def drop(self) -> None:
        """End it, whatever it was about."""
        task, self.task = self.task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _until_known(self, claim: Claim) -> None:
        while True:
            try:
                await self._settle(claim)
            except OwnedElsewhere:
                await self._ousted()
                return
            except (CustodyError, BucketError) as e:
                log.warning("first snapshot not confirmed yet", tenant=self._tenant, error=str(e))
            except Exception:
                log.exception("settling failed", tenant=self._tenant)
            else:
                self._done(claim)
                return
            await asyncio.sleep(AGAIN_S)
