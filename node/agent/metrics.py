"""The node's metrics for Prometheus: gauges and counters of one moment from a frozen snapshot, and what is observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# A series of its own beside each counter, for when it began: nobody asked for those.
disable_created_metrics()  # type: ignore[no-untyped-call] # the library has no annotation there
RESTORE_BUCKETS = (0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
BUCKET_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class TenantSample:
    """One tenant now. None is unknown: no sample is given then, never a 0 that looks like a measurement.

    `last_confirmed` is unix seconds; `cpu_s` what its worker used since it started; `restarts` by container
    (`worker`, `sidecar`), grown since the agent started; `orphaned` transactions are a zombie's.
    """

    tenant: str
    up: bool
    behind: bool = False
    lag_s: float | None = None
    last_confirmed: float | None = None
    database_bytes: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    disk_limit_bytes: int | None = None
    cpu_s: float | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    orphaned: int | None = None
    unguarded: bool | None = None


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The machine now. `lease_remaining_s` may be negative: past the deadline, frozen. `state_free_bytes` and
    `state_bytes` are of the file system that holds the tenants' volumes; `aside_` of those set aside there."""

    tenants: tuple[TenantSample, ...] = ()
    lease_remaining_s: float | None = None
    state_bytes: int | None = None
    state_free_bytes: int | None = None
    aside_volumes: int | None = None
    aside_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Gauge:
    name: str
    text: str
    of: Callable[[TenantSample], float | None]


_TENANT_GAUGES = (
    _Gauge("fleet_tenant_up", "Whether the tenant is running here and healthy: 1 or 0.", lambda t: float(t.up)),
    _Gauge(
        "fleet_tenant_replication_behind",
        "Whether the bucket is too far behind, past ten times the tenant's rpo and past a minute: 1 or 0.",
        lambda t: float(t.behind),
    ),
    _Gauge(
        "fleet_tenant_replication_lag_seconds",
        "Seconds for which the oldest committed change has not been in the bucket; 0 when all is there.",
        lambda t: t.lag_s,
    ),
    _Gauge(
        "fleet_tenant_last_confirmed_timestamp_seconds",
        "Unix time in seconds of the last change that was confirmed in the bucket.",
        lambda t: t.last_confirmed,
    ),
    _Gauge("fleet_tenant_database_bytes", "Bytes of the tenant's database files.", lambda t: t.database_bytes),
    _Gauge("fleet_tenant_memory_bytes", "Bytes of memory that the tenant's containers use.", lambda t: t.memory_bytes),
    _Gauge("fleet_tenant_disk_bytes", "Bytes of disk that the tenant's data folder occupies.", lambda t: t.disk_bytes),
    _Gauge(
        "fleet_tenant_log_unguarded",
        "Whether no lock of the sidecar's keeps the tenant's log until it is copied: 1 or 0.",
        lambda t: t.unguarded,
    ),
    _Gauge(
        "fleet_tenant_orphaned_transactions",
        "Transactions that a zombie uploaded after this node took over: never merged, kept for the retention.",
        lambda t: t.orphaned,
    ),
    _Gauge("fleet_tenant_disk_limit_bytes", "Bytes of disk that the tenant is allowed.", lambda t: t.disk_limit_bytes),
)


def families(now: NodeSnapshot) -> list[Metric]:
    """The snapshot as metric families, all of them present even without a sample."""
    found: list[Metric] = [
        _single(
            "fleet_lease_remaining_seconds",
            "Seconds until this machine's lease runs out and its tenants are frozen; negative after that.",
            now.lease_remaining_s,
        ),
        _single("fleet_state_disk_bytes", "Bytes of the file system that holds the tenants' data.", now.state_bytes),
        _single("fleet_state_disk_free_bytes", "Bytes of it that are still free.", now.state_free_bytes),
        _single(
            "fleet_aside_volumes", "Volumes that were set aside here and are kept for the retention.", now.aside_volumes
        ),
        _single("fleet_aside_bytes", "Bytes that they occupy.", now.aside_bytes),
    ]
    for gauge in _TENANT_GAUGES:
        family = GaugeMetricFamily(gauge.name, gauge.text, labels=["tenant"])
        for tenant in now.tenants:
            value = gauge.of(tenant)
            if value is not None:
                family.add_metric([tenant.tenant], value)
        found.append(family)
    cpu = CounterMetricFamily(
        "fleet_tenant_cpu_seconds", "Seconds of CPU time that the tenant's containers used.", labels=["tenant"]
    )
    restarts = CounterMetricFamily(
        "fleet_tenant_restarts",
        "Restarts of the tenant's containers that nobody asked for: worker, sidecar.",
        labels=["tenant", "container"],
    )
    for tenant in now.tenants:
        if tenant.cpu_s is not None:
            cpu.add_metric([tenant.tenant], tenant.cpu_s)
        for container, count in sorted(tenant.restarts.items()):
            restarts.add_metric([tenant.tenant, container], count)
    return [*found, cpu, restarts]


def _single(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


class _Now(Collector):
    """Asks for a snapshot at each scrape."""

    def __init__(self, snapshot: Callable[[], NodeSnapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        return families(self._snapshot())

    def describe(self) -> Iterable[Metric]:
        """The names alone: registering takes no snapshot."""
        return families(NodeSnapshot())


class NodeMetrics:
    """Every metric of a node, in a registry of its own. `snapshot` is called at each scrape, in the scrape's thread:
    it answers from memory. The `observe_` methods are safe from any thread."""

    def __init__(self, snapshot: Callable[[], NodeSnapshot]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Now(snapshot))
        self._collected_objects = Counter(
            "fleet_collected_objects", "Objects of dead epochs that were deleted in the bucket.", registry=self.registry
        )
        self._collected_bytes = Counter(
            "fleet_collected_bytes", "Bytes of dead epochs that were deleted in the bucket.", registry=self.registry
        )
        self._fenced = Counter(
            "fleet_fenced",
            "Times that this machine froze its tenants, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._restore_duration = Histogram(
            "fleet_restore_duration_seconds",
            "Seconds of a tenant's restore from the bucket, download and check.",
            registry=self.registry,
            buckets=RESTORE_BUCKETS,
        )
        self._restored_bytes = Counter(
            "fleet_restored_bytes", "Bytes of database files restored from the bucket.", registry=self.registry
        )
        self._bucket_duration = Histogram(
            "fleet_bucket_request_duration_seconds",
            "Seconds of one request to the bucket.",
            ["operation"],
            registry=self.registry,
            buckets=BUCKET_BUCKETS,
        )
        self._bucket_errors = Counter(
            "fleet_bucket_errors",
            "Requests to the bucket that failed, by error.",
            ["operation", "code"],
            registry=self.registry,
        )

    def observe_fence(self, reason: str) -> None:
        """The machine froze its tenants."""
        self._fenced.labels(reason).inc()

    def observe_collected(self, objects: int, size_bytes: int) -> None:
        """Dead epochs of a tenant were deleted."""
        self._collected_objects.inc(objects)
        self._collected_bytes.inc(size_bytes)

    def observe_restore(self, duration_s: float, restored_bytes: int) -> None:
        """A restore was finished."""
        self._restore_duration.observe(duration_s)
        self._restored_bytes.inc(restored_bytes)

    def observe_bucket_request(self, operation: str, duration_s: float, code: str | None) -> None:
        """One request to the bucket, as the store's adapter reports it. That a key is missing or a condition failed is
        an answer, no error."""
        self._bucket_duration.labels(operation).observe(duration_s)
        if code not in (None, "missing", "conflict"):
            self._bucket_errors.labels(operation, code).inc()

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
