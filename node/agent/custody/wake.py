"""When a tenant wants to run next: at most one write of the owner record in a while, the latest wish wins.

What waits for its turn goes with whatever is written of the record before, so a release never loses it.
"""

from __future__ import annotations

import asyncio

import structlog

from node.agent.custody.context import Context
from node.agent.custody.errors import CustodyError
from node.agent.custody.held import HeldTenant, Wake, write_owner
from node.bucket.errors import BucketError

log = structlog.get_logger()


async def wake_at(ctx: Context, t: HeldTenant, at: float | None) -> None:
    """Take a wish up: written at once if none was written lately, else soon. Raises OwnedElsewhere, Unconfirmed."""
    if t.wake is None and t.owner.record.wake_at == at:
        return
    t.wake = Wake(at)
    if t.waking is not None and not t.waking.done():
        return  # it writes the latest when its time comes
    wait_s = t.wake_not_before - ctx.monotonic()
    if wait_s > 0:
        t.waking = asyncio.get_running_loop().create_task(_later(ctx, t, wait_s), name=f"wake-{t.tenant}")
        return
    await _write(ctx, t)


async def _later(ctx: Context, t: HeldTenant, wait_s: float) -> None:
    while t.wake is not None:
        await asyncio.sleep(wait_s)
        try:
            await _write(ctx, t)
        except (CustodyError, BucketError) as e:
            log.warning("when it wants to wake is not recorded yet", tenant=t.tenant, error=str(e))
        wait_s = ctx.bounds.wake_s


async def _write(ctx: Context, t: HeldTenant) -> None:
    if t.wake is not None:
        t.wake_not_before = ctx.monotonic() + ctx.bounds.wake_s
        await write_owner(ctx, t)
