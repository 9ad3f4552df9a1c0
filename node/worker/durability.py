"""What a tenant's own code asks before it says "done" to anybody: is everything that I committed safe?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from node.worker.problem import Problem

_confirm: Callable[[], Awaitable[None]] | None = None


def confirm_with(confirm: Callable[[], Awaitable[None]] | None) -> None:
    """Tells how commits are confirmed; None when a local commit is all that the tenant's rpo asks for."""
    global _confirm
    _confirm = confirm


async def durable(timeout_s: float | None = None) -> None:
    """Returns once everything committed so far, in every database, is as safe as the tenant's rpo asks.

    With an rpo of 0 that is when the bucket has it; with another, a commit is enough and this returns at once. Await it
    before answering a request that stored something, and at the end of an activity that wrote to a database of its own:
    each file travels to the bucket by itself, so the log could otherwise come back from there without the file.

    Raises Problem 503 after `timeout_s` seconds: the outcome is unknown, and the call is safe to repeat.
    """
    if _confirm is None:
        return
    try:
        async with asyncio.timeout(timeout_s):
            await _confirm()
    except TimeoutError:
        detail = f"stored, but not confirmed as durable within {timeout_s:g} s; repeat the request"
        raise Problem(503, "unconfirmed", detail, retryable=True, headers=(("retry-after", "1"),)) from None
