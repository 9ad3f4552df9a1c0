"""A real Prometheus with the configuration that is shipped: it discovers, scrapes, and answers for every name."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.box import ROOT, Box, running
from tests.testbed.engine import Engine
from tests.testbed.process import Process, free_ports
from tests.testbed.stores import StoreServer

APPROVALS = ROOT / "tests/e2e/apps/approvals"
SHIPPED = ROOT / "deploy/prometheus"

CONTROLLER = {
    "fleet_tenants",
    "fleet_nodes",
    "fleet_leaving_tenants",
    "fleet_controller_acts",
    "fleet_operations_total",
    "fleet_operation_duration_seconds_count",
    "fleet_reconcile_duration_seconds_count",
    "fleet_bucket_request_duration_seconds_count",
}
NODE = {
    "fleet_lease_remaining_seconds",
    "fleet_tenant_up",
    "fleet_tenant_replication_lag_seconds",
    "fleet_tenant_last_confirmed_timestamp_seconds",
    "fleet_tenant_database_bytes",
    "fleet_tenant_memory_bytes",
    "fleet_tenant_disk_bytes",
    "fleet_tenant_cpu_seconds_total",
    "fleet_tenant_restarts_total",
    "fleet_restore_duration_seconds_count",
    "fleet_restored_bytes_total",
}
# Counters of what did not happen have no sample, but they are told of, with their help.
DECLARED = {"fleet_failovers_total", "fleet_bucket_errors_total", "fleet_fenced_total"}


class Prometheus:
    """The server, with what is shipped in its configuration and this box's addresses and token."""

    def __init__(self, box: Box, folder: Path) -> None:
        shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
        text = (SHIPPED / "prometheus.yml").read_text()
        assert text.count("127.0.0.1:7070") == 3, "the places that a user changes"
        address = box.controller.removeprefix("http://")
        # Seconds are enough for a test; nothing else is different.
        text = text.replace("127.0.0.1:7070", address).replace("15s", "1s").replace("30s", "1s").replace("5s", "1s")
        (folder / "prometheus.yml").write_text(text)
        token = folder / "fleet.token"
        token.touch(mode=0o600)
        token.write_text(box.token())
        (port,) = free_ports(1)
        self._box = box
        self._url = f"http://127.0.0.1:{port}"
        self.process = Process(
            [
                "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            log=folder / "prometheus.log",
            cwd=folder,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.process.start(lambda: self.get("/-/ready") is not None)

    def get(self, path: str) -> Any:
        """JSON of its API; None if it does not answer well."""
        try:
            status, body = self._box.request("GET", self._url + path)
        except OSError:
            return None
        return body if status == 200 else None

    def ask(self, query: str) -> list[dict[str, Any]]:
        """An instant query's result."""
        found = self.get(f"/api/v1/query?query={quote(query)}")
        assert found is not None, query
        return list(found["data"]["result"])

    def targets(self) -> dict[str, str]:
        """Health by job, of what is scraped."""
        found = self.get("/api/v1/targets?state=active")
        return {t["labels"]["job"]: f"{t['health']} {t['lastError']}".strip() for t in found["data"]["activeTargets"]}

    def names(self) -> set[str]:
        """Every metric that has a sample."""
        return set(self.get("/api/v1/label/__name__/values")["data"])

    def metadata(self) -> dict[str, Any]:
        """Type, help and unit by metric."""
        return dict(self.get("/api/v1/metadata")["data"])


@pytest.fixture(scope="module")
def box(folder: Path, engine: Engine, images: str, minio: StoreServer) -> Iterator[Box]:
    """A fleet that others could join: alone, a machine has no lease that could run out."""
    env = minio.environment(minio.new_bucket(), "fleet")
    with running(Box(folder, engine.host, env, FLEET_MODE="shared")) as started:
        yield started


@pytest.fixture(scope="module")
def tenant(box: Box) -> str:
    """A tenant with metrics of its own, that was restored once."""
    box.fleet("up", "acme", "--app", str(APPROVALS))
    spec = box.status("acme")["spec"] | {"metrics": "/metrics"}
    box.fleet("up", "acme", "-f", "-", stdin=json.dumps(spec))
    box.fleet("run", "acme", "approve", "--id", "one")
    box.eventually(lambda: bool(box.json("points", "acme")), "a point")
    box.fleet("restore", "acme", "-y")
    return "acme"


@pytest.fixture(scope="module")
def prometheus(box: Box, tenant: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It runs, and has scraped everything."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine: apt-get install prometheus")
    server = Prometheus(box, tmp_path_factory.mktemp("prometheus"))
    server.start()
    try:
        well = {"fleet-controller": "up", "fleet-node": "up", "fleet-tenant": "up"}
        with contextlib.suppress(AssertionError):
            box.eventually(lambda: server.targets() == well, "every target up", timeout_s=90)
        assert server.targets() == well, server.process.tail()
        yield server
    finally:
        server.process.stop()


def test_every_name_of_one_machine_is_there(box: Box, prometheus: Prometheus) -> None:
    wanted = CONTROLLER | NODE
    with contextlib.suppress(AssertionError):
        box.eventually(lambda: wanted <= prometheus.names(), "every name", timeout_s=90)
    assert wanted - prometheus.names() == set()
    told = prometheus.metadata()
    families = {name.removesuffix("_count") for name in wanted} | DECLARED
    assert families <= set(told)
    for name in families:
        assert told[name][0]["help"], name
        kind = told[name][0]["type"]
        assert (kind == "counter") == name.endswith("_total"), name


def test_a_tenant_that_is_up_is_1_and_one_that_is_down_is_not(box: Box, tenant: str, prometheus: Prometheus) -> None:
    found = prometheus.ask(f'fleet_tenant_up{{tenant="{tenant}"}}')
    assert [(r["metric"]["node"], r["value"][1]) for r in found] == [("one", "1")]
    assert prometheus.ask('fleet_tenants{state="running"}')[0]["value"][1] == "1"
    assert prometheus.ask('fleet_nodes{state="ready"}')[0]["value"][1] == "1"
    box.fleet("down", tenant)
    box.eventually(lambda: not prometheus.ask(f'fleet_tenant_up{{tenant="{tenant}"}} == 1'), "its end in the metrics")
    box.fleet("up", tenant)
    box.eventually(lambda: bool(prometheus.ask(f'fleet_tenant_up{{tenant="{tenant}"}} == 1')), "its return")


def test_what_is_measured_is_so(box: Box, tenant: str, prometheus: Prometheus) -> None:
    def value(name: str) -> float:
        found = prometheus.ask(f'{name}{{tenant="{tenant}"}}')
        return float(found[0]["value"][1]) if found else -1.0

    box.eventually(lambda: value("fleet_tenant_memory_bytes") > 1 << 20, "memory")
    assert value("fleet_tenant_database_bytes") >= 4096
    assert value("fleet_tenant_disk_bytes") >= 4096
    box.eventually(lambda: value("fleet_tenant_cpu_seconds_total") > 0, "processor time")
    box.eventually(lambda: value("fleet_tenant_replication_lag_seconds") == 0, "no lag", timeout_s=90)
    confirmed = value("fleet_tenant_last_confirmed_timestamp_seconds")
    assert abs(confirmed - box.clock()) < 600
    assert 0 < float(prometheus.ask("fleet_lease_remaining_seconds")[0]["value"][1]) <= 15
    assert float(prometheus.ask("fleet_restored_bytes_total")[0]["value"][1]) > 0


def test_a_crash_is_counted(box: Box, tenant: str, prometheus: Prometheus) -> None:
    box.kill_container(tenant)
    query = f'fleet_tenant_restarts_total{{tenant="{tenant}",container="worker"}} >= 1'
    box.eventually(lambda: bool(prometheus.ask(query)), "a counted restart")


def test_a_tenants_own_metrics_are_its_own_and_never_saw_the_fleets_token(
    box: Box, tenant: str, prometheus: Prometheus
) -> None:
    found = prometheus.ask('up{job="fleet-tenant"}')
    assert [(r["metric"]["instance"], r["metric"]["tenant"]) for r in found] == [(tenant, tenant)]
    own = prometheus.ask('count({job="fleet-tenant",__name__!~"up|scrape_.*"})')
    assert float(own[0]["value"][1]) > 0


def test_the_rules_that_are_shipped_are_loaded_and_nothing_fires_on_a_fleet_that_is_well(
    box: Box, prometheus: Prometheus
) -> None:
    found = prometheus.get("/api/v1/rules?type=alert")
    rules = [r for g in found["data"]["groups"] for r in g["rules"]]
    assert len(rules) >= 6
    names = subprocess.run(
        ["promtool", "check", "rules", str(SHIPPED / "rules.yml")], capture_output=True, text=True, check=False
    )
    assert f"{len(rules)} rules" in names.stdout
    firing = [r["name"] for r in rules if r["state"] == "firing"]
    assert firing == []
