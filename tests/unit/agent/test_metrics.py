"""The node's metrics: every name of the contract, with help and unit, and no number where nothing is known."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.agent.metrics import NodeMetrics, NodeSnapshot, TenantSample

CONTRACT = {
    "fleet_lease_remaining_seconds": ("gauge", set()),
    "fleet_fenced_total": ("counter", {"reason"}),
    "fleet_tenant_up": ("gauge", {"tenant"}),
    "fleet_tenant_replication_lag_seconds": ("gauge", {"tenant"}),
    "fleet_tenant_last_confirmed_timestamp_seconds": ("gauge", {"tenant"}),
    "fleet_tenant_database_bytes": ("gauge", {"tenant"}),
    "fleet_tenant_memory_bytes": ("gauge", {"tenant"}),
    "fleet_tenant_disk_bytes": ("gauge", {"tenant"}),
    "fleet_tenant_cpu_seconds_total": ("counter", {"tenant"}),
    "fleet_tenant_restarts_total": ("counter", {"tenant", "container"}),
    "fleet_restore_duration_seconds": ("histogram", set()),
    "fleet_restored_bytes_total": ("counter", set()),
}
MORE = {
    "fleet_tenant_replication_behind": ("gauge", {"tenant"}),
    "fleet_tenant_disk_limit_bytes": ("gauge", {"tenant"}),
    "fleet_tenant_orphaned_transactions": ("gauge", {"tenant"}),
    "fleet_tenant_log_unguarded": ("gauge", {"tenant"}),
    "fleet_aside_volumes": ("gauge", set()),
    "fleet_aside_bytes": ("gauge", set()),
    "fleet_collected_objects_total": ("counter", set()),
    "fleet_collected_bytes_total": ("counter", set()),
    "fleet_state_disk_bytes": ("gauge", set()),
    "fleet_state_disk_free_bytes": ("gauge", set()),
    "fleet_bucket_request_duration_seconds": ("histogram", {"operation"}),
    "fleet_bucket_errors_total": ("counter", {"operation", "code"}),
}
ALL = {**CONTRACT, **MORE}

KNOWN = TenantSample(
    "acme",
    up=True,
    behind=True,
    lag_s=2.5,
    last_confirmed=1_750_000_000.25,
    database_bytes=4096,
    memory_bytes=1 << 20,
    disk_bytes=8192,
    disk_limit_bytes=1 << 30,
    cpu_s=3.5,
    restarts={"worker": 2, "sidecar": 0},
    orphaned=3,
    unguarded=False,
)


def filled() -> NodeMetrics:
    metrics = NodeMetrics(lambda: NodeSnapshot((KNOWN, TenantSample("beta", up=False)), -1.5, 1000, 10, 1, 4096))
    metrics.observe_fence("lease")
    metrics.observe_restore(1.5, 4096)
    metrics.observe_bucket_request("put", 0.01, None)
    metrics.observe_bucket_request("get", 0.01, "missing")
    metrics.observe_bucket_request("put", 0.01, "timeout")
    return metrics


def samples(metrics: NodeMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.render().decode()
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_every_name_of_the_contract_is_there_with_its_type_and_labels() -> None:
    found = {}
    for family in text_string_to_metric_families(filled().render().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {key for s in family.samples for key in s.labels} - {"le"}
        found[name] = (family.type, labels)
    assert found == ALL


@pytest.mark.parametrize("name", ALL)
def test_every_metric_has_help_that_says_its_unit(name: str) -> None:
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", filled().render().decode(), flags=re.MULTILINE))
    text = helps[name]
    for unit in ("seconds", "bytes"):
        if f"_{unit}" in name:
            assert unit in text.lower()
    assert text.endswith(".")


def test_the_values_are_those_of_the_snapshot() -> None:
    seen = samples(filled())

    def of(name: str, **labels: str) -> float:
        return seen[name, frozenset(labels.items())]

    assert of("fleet_lease_remaining_seconds") == -1.5
    assert of("fleet_tenant_up", tenant="acme") == 1
    assert of("fleet_tenant_up", tenant="beta") == 0
    assert of("fleet_tenant_replication_lag_seconds", tenant="acme") == 2.5
    assert of("fleet_tenant_last_confirmed_timestamp_seconds", tenant="acme") == 1_750_000_000.25
    assert of("fleet_tenant_cpu_seconds_total", tenant="acme") == 3.5
    assert of("fleet_tenant_restarts_total", tenant="acme", container="worker") == 2
    assert of("fleet_tenant_restarts_total", tenant="acme", container="sidecar") == 0
    assert of("fleet_fenced_total", reason="lease") == 1
    assert of("fleet_restored_bytes_total") == 4096
    assert of("fleet_restore_duration_seconds_sum") == 1.5


def test_what_is_unknown_has_no_sample() -> None:
    names = {name for name, labels in samples(filled()) if ("tenant", "beta") in labels}
    assert names == {"fleet_tenant_up", "fleet_tenant_replication_behind"}
    assert "fleet_lease_remaining_seconds" not in {name for name, _ in samples(NodeMetrics(NodeSnapshot))}


def test_an_answer_that_says_no_is_no_error_of_the_bucket() -> None:
    errors = {labels: v for (name, labels), v in samples(filled()).items() if name == "fleet_bucket_errors_total"}
    assert errors == {frozenset({("operation", "put"), ("code", "timeout")}): 1}


def test_registering_takes_no_snapshot() -> None:
    def never() -> NodeSnapshot:
        raise AssertionError("asked too early")

    NodeMetrics(never)
