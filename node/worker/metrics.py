"""The worker's metrics in Prometheus' text format, written by hand: the client library costs more than this file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import field

from node.worker.door import Door
from node.workflow import Engine
from node.workflow.values.dataclass import dataclass
from node.workflow.values.measure import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


@dataclass(slots=True)
class RequestCounts:
    """Requests by operation, method and status, and the seconds that they took."""

    total: dict[tuple[str, str, int], int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, operation: str, method: str, status: int, duration_s: float) -> None:
        """Counts one answered request; an unheard-of method counts as `other`, so that clients can't grow the table."""
        key = (operation, method if method in _METHODS else "other", status)
        self.total[key] = self.total.get(key, 0) + 1
        self.seconds[operation] = self.seconds.get(operation, 0.0) + duration_s


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, type (`counter`, `gauge` or `histogram`), help and samples.

    The name of a sample is that of the family, with the suffix that its labels come with.
    """

    name: str
    kind: str
    help: str
    samples: Iterable[Sample] = ()
    histogram: Histogram | None = None


def render(families: Iterable[Family]) -> str:
    """The exposition text."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(f"{family.name}{_labels(labels)} {value!r}" for labels, value in family.samples)
        if family.histogram is not None:
            lines.extend(_histogram(family.name, family.histogram))
    return "\n".join(lines) + "\n"


def _histogram(name: str, histogram: Histogram) -> Iterable[str]:
    count = 0
    for bound, more in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        count += more
        yield f'{name}_bucket{{le="{"+Inf" if bound == math.inf else f"{bound:g}"}"}} {count}'
    yield f"{name}_sum {histogram.sum!r}"
    yield f"{name}_count {count}"


def refused_family(refused: Mapping[str, int]) -> Family:
    """The family of the requests that were told to come back."""
    samples = [({"reason": reason}, count) for reason, count in sorted(refused.items())]
    return Family("worker_refused_requests_total", "counter", "Requests answered 429, by what was too much.", samples)


def request_families(counts: RequestCounts) -> list[Family]:
    """The families of the requests that were answered."""
    return [
        Family(
            "worker_requests_total",
            "counter",
            "Requests answered, by operation (app: the tenant's own routes), method and status.",
            [
                ({"operation": operation, "method": method, "status": str(status)}, count)
                for (operation, method, status), count in sorted(counts.total.items())
            ],
        ),
        Family(
            "worker_request_seconds_total",
            "counter",
            "Seconds spent answering requests, by operation; long polls count with their wait.",
            [({"operation": operation}, seconds) for operation, seconds in sorted(counts.seconds.items())],
        ),
    ]


def door_families(door: Door) -> list[Family]:
    """The families of the confirmations asked of the node."""
    counts = door.counts
    outcomes = [({"outcome": "confirmed"}, counts.confirmed), ({"outcome": "unknown"}, counts.unknown)]
    return [
        Family("worker_durable_calls_total", "counter", "Confirmations asked of the node, by outcome.", outcomes),
        Family("worker_durable_seconds_total", "counter", "Seconds of confirmed calls.", [({}, counts.confirmed_s)]),
    ]


def engine_families(engine: Engine) -> list[Family]:
    """The families of the engine's runs and log."""
    stats = engine.stats()
    counters = {
        "steps": "Activities that ended, well or badly.",
        "retries": "Attempts that failed and are repeated.",
        "events": "Events appended to the log.",
        "commits": "Transactions of the log.",
        "failed_commits": "Transactions of the log that failed.",
    }
    gauges = {
        "queued_activities": "Activities that wait for a free place.",
        "running_activities": "Activities that run now.",
        "loaded_runs": "Runs in memory.",
        "lost_threads": "Threads that run a call which nobody waits for any more.",
    }
    histograms = {
        "attempt_duration_seconds": ("Attempts of activities, from begin to end.", stats.attempt_seconds),
        "replay_duration_seconds": ("Replays of runs that come back into memory.", stats.replay_seconds),
        "commit_batch_runs": ("Runs in one transaction of the log.", stats.commit_batches),
    }
    return [
        Family(
            "worker_runs", "gauge", "Runs in the log, by state.", [({"state": s}, n) for s, n in stats.runs.items()]
        ),
        *(Family(f"worker_{n}_total", "counter", h, [({}, getattr(stats, n))]) for n, h in counters.items()),
        *(Family(f"worker_{n}", "gauge", h, [({}, getattr(stats, n))]) for n, h in gauges.items()),
        *(Family(f"worker_{n}", "histogram", h, histogram=f) for n, (h, f) in histograms.items()),
        Family(
            "worker_queue_depth",
            "gauge",
            "Runs that wait in a queue.",
            [({"queue": queue.name}, depth) for queue, depth in engine.queues()],
        ),
        Family(
            "worker_next_due_timestamp_seconds",
            "gauge",
            "When something is to go on next by itself; absent: nothing is.",
            [({}, due)] if (due := engine.next_due()) is not None else [],
        ),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
