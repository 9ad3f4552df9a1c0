"""The controller's metrics, in a registry of their own. Counts by state are taken when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

OPERATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
FAST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _States(Collector):
    """Gauges by state, computed at the scrape. States without a member are 0, so that an alert sees them return."""

    def __init__(
        self, name: str, text: str, known: Iterable[str], counts: Callable[[], Mapping[str, int]], label: str
    ) -> None:
        self._name, self._text, self._known, self._counts, self._label = name, text, tuple(known), counts, label

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        counts = self._counts()
        for state in self._known:
            family.add_metric([state], counts.get(state, 0))
        yield family


class Metrics:
    """Every metric of the controller. Times are seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.operations = Counter(
            "fleet_operations",
            "Operations that were finished: up, down, restart, restore, purge.",
            ["operation", "outcome"],
            registry=self.registry,
        )
        self.operation_duration = Histogram(
            "fleet_operation_duration_seconds",
            "Seconds from the change of a spec until it was carried out or given up.",
            ["operation"],
            registry=self.registry,
            buckets=OPERATION_BUCKETS,
        )
        self.failovers = Counter(
            "fleet_failovers",
            "Tenants that were placed anew because their node's session was over.",
            ["reason"],
            registry=self.registry,
        )
        self.acts = Gauge(
            "fleet_controller_acts",
            "Whether this controller is the one that acts: 1 or 0. The others answer, and take over.",
            registry=self.registry,
        )
        self.reconcile_duration = Histogram(
            "fleet_reconcile_duration_seconds",
            "Seconds of one reconcile pass.",
            registry=self.registry,
            buckets=FAST_BUCKETS,
        )
        self.bucket_duration = Histogram(
            "fleet_bucket_request_duration_seconds",
            "Seconds of one request to the bucket.",
            ["operation"],
            registry=self.registry,
            buckets=FAST_BUCKETS,
        )
        self.bucket_errors = Counter(
            "fleet_bucket_errors",
            "Requests to the bucket that failed, by error.",
            ["operation", "code"],
            registry=self.registry,
        )

    def states(
        self, name: str, text: str, known: Iterable[str], counts: Callable[[], Mapping[str, int]], label: str = "state"
    ) -> None:
        """Register gauges by state."""
        self.registry.register(_States(name, text, known, counts, label))

    def bucket_request(self, operation: str, seconds: float, code: str | None) -> None:
        """Observe one request: what the store's adapter calls. Safe from any thread."""
        self.bucket_duration.labels(operation).observe(seconds)
        if code not in (None, "missing", "conflict"):
            self.bucket_errors.labels(operation, code).inc()

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
