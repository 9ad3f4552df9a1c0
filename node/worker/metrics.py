"""The worker's metrics in Prometheus' text format, written by hand: the client library costs more than this file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from node.worker.door import Door
from node.workflow import Engine

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
    """One metric: its name, type (`counter` or `gauge`), help and samples."""

    name: str
    kind: str
    help: str
    samples: Iterable[Sample]


def render(families: Iterable[Family]) -> str:
    """The exposition text."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(f"{family.name}{_labels(labels)} {value!r}" for labels, value in family.samples)
    return "\n".join(lines) + "\n"


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
    }
    return [
        Family(
            "worker_runs", "gauge", "Runs in the log, by state.", [({"state": s}, n) for s, n in stats.runs.items()]
        ),
        *(Family(f"worker_{n}_total", "counter", h, [({}, getattr(stats, n))]) for n, h in counters.items()),
        *(Family(f"worker_{n}", "gauge", h, [({}, getattr(stats, n))]) for n, h in gauges.items()),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
