"""What to do next about one tenant on this node: a pure decision from what is wanted and what is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Literal

from node.api import Assignment
from node.bucket.spec import TenantSpec

# The first retry comes quickly, as most failures are passing; a tenant that crashes in a loop costs a start a minute.
BACKOFF_FIRST_S = 1.0
BACKOFF_LIMIT_S = 60.0
# A worker that ran this long was healthy: its next crash starts the backoff anew.
STEADY_S = 60.0
# Why a start failed in which the spec has no part: another one would have fared no better.
NOT_THE_SPEC = frozenset({"no_address", "no_secrets"})

Step = Literal["up", "worker", "restart", "restore", "renew", "down", "purge", "tombstone", "observe", "wait", "idle"]


@dataclass(frozen=True, slots=True)
class Actual:
    """What is true of a tenant here.

    claimed: the owner record names this session. held: and its files are here and streamed. worker: fingerprint of the
    one that runs, empty for none.
    settled: the generation that was carried out or given up. failures: failed tries in a row. retry_at: not before this
    moment, monotonic seconds. blocked_generation: retrying this one can't help (lost, damaged, refused for good).
    stopped: its disk has stopped after an error, and all that was on it is in the bucket.
    gone: tombstoned. restore_id: the last restore that was carried out.
    """

    claimed: bool = False
    held: bool = False
    worker: str = ""
    settled: int = 0
    failures: int = 0
    retry_at: float = 0.0
    blocked_generation: int = 0
    gone: bool = False
    stopped: bool = False
    restore_id: str | None = None


def fingerprint(spec: TenantSpec, restarts: int) -> str:
    """A hash of everything that a running worker was started with: another one means that it must be restarted."""
    what = spec.model_dump(mode="json", exclude={"labels", "retention", "node", "access", "metrics"})
    return hashlib.sha256(json.dumps([what, restarts], sort_keys=True).encode()).hexdigest()[:16]


def plan(want: Assignment, actual: Actual, now: float) -> Step:
    """The next step. `wait` is for `retry_at`, `idle` for a change. `now` is monotonic seconds."""
    step = _step(want, actual)
    return "wait" if step != "idle" and now < actual.retry_at else step


def _step(want: Assignment, actual: Actual) -> Step:
    observed: Step = "idle" if actual.settled >= want.generation else "observe"
    if want.want == "purged":
        if actual.gone:
            return observed
        return "purge" if actual.claimed else "tombstone"
    if want.want == "down":
        # Also what is not claimed: an agent that died may have left a record that still names this node.
        return "down" if actual.claimed or actual.settled < want.generation else "idle"
    if actual.blocked_generation == want.generation:
        return "idle"
    if want.restore is not None and want.restore.id != actual.restore_id:
        return "restore"
    if not actual.held:
        return "up"
    if actual.stopped:
        return "renew"
    if not actual.worker:
        return "worker"
    if actual.worker != fingerprint(want.spec, want.restarts) and actual.settled < want.generation:
        return "restart"
    return observed


def failed(actual: Actual, now: float) -> Actual:
    """One more failure in a row: the next try waits twice as long, at most a minute."""
    delay = min(BACKOFF_FIRST_S * 2**actual.failures, BACKOFF_LIMIT_S)
    return replace(actual, failures=actual.failures + 1, retry_at=now + delay)


def crashed(actual: Actual, ran_s: float, now: float) -> Actual:
    """The worker ended by itself after `ran_s` seconds: the first restart is at once, a loop backs off."""
    failures = 0 if ran_s >= STEADY_S else actual.failures
    delay = 0.0 if failures == 0 else min(BACKOFF_FIRST_S * 2 ** (failures - 1), BACKOFF_LIMIT_S)
    return replace(actual, worker="", failures=failures + 1, retry_at=now + delay)
