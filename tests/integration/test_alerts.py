"""The Prometheus files under deploy/: valid, each alert fires as its test says, and they speak of what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
BOARD = ROOT / "deploy" / "grafana" / "board.json"
PAGED = {
    "replication behind": "FleetReplicationBehind",
    "restore failed": "FleetRestoreFailed",
    "tenant down": "FleetTenantDown",
    "tenant lost": "FleetTenantLost",
    "lease about to run out": "FleetLeaseRunningOut",
    "disk filling": "FleetDiskFilling",
    "bucket errors": "FleetBucketErrors",
    "a node that does not answer": "FleetNodeSilent",
    "a node that froze its tenants": "FleetFenced",
    "a node that cannot be changed": "FleetNodeNotReady",
    "no room": "FleetTenantsWithoutNode",
    "nobody who acts": "FleetNobodyActs",
    "a log that is not guarded": "FleetLogUnguarded",
}
METRIC = re.compile(r"\bfleet_[a-z_]+")


def promtool(*arguments: str, cwd: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def exported() -> set[str]:
    """Every name that a controller or a node gives out, with the suffixes of histograms and counters."""
    texts = [ROOT / "node" / "agent" / "metrics.py", ROOT / "fleet" / "metrics.py", ROOT / "fleet" / "app.py"]
    names = {name for path in texts for name in re.findall(r'"(fleet_[a-z_]+)"', path.read_text())}
    return {name + suffix for name in names for suffix in ("", "_total", "_bucket", "_sum", "_count")}


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "rules.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    (tmp_path / "fleet.token").write_text("token")
    promtool("check", "config", "prometheus.yml", cwd=tmp_path)


def test_each_alert_fires_when_it_should_and_else_keeps_quiet() -> None:
    promtool("check", "rules", "rules.yml", cwd=FOLDER)
    promtool("test", "rules", "rules.test.yml", cwd=FOLDER)


def test_every_alert_has_a_test_that_sees_it_fire_and_one_that_does_not() -> None:
    tests = yaml.safe_load((FOLDER / "rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fires == {rule["alert"] for rule in rules()}
    quiet = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert set(PAGED.values()) <= quiet


@pytest.mark.parametrize("what", PAGED)
def test_an_operator_is_paged_for(what: str) -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == PAGED[what]]
    assert rule["labels"]["severity"] == "page"
    assert rule["annotations"]["description"].strip()


def test_the_operators_page_names_everything_that_pages() -> None:
    named = re.findall(r"`(Fleet\w+)`", (ROOT / "deploy" / "production.md").read_text())
    assert sorted(named) == sorted(rule["alert"] for rule in rules() if rule["labels"]["severity"] == "page")


def test_alerts_and_board_speak_of_metrics_that_exist() -> None:
    used = {name for rule in rules() for name in METRIC.findall(rule["expr"])}
    panels = json.loads(BOARD.read_text())["panels"]
    used |= {n for panel in panels for t in panel.get("targets", []) for n in METRIC.findall(t["expr"])}
    assert used
    assert used <= exported()


def test_no_tenant_is_sent_the_fleets_token() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "fleet-tenant"]
    assert "authorization" not in job


def test_the_board_shows_every_metric_and_asks_valid_questions(tmp_path: Path) -> None:
    """Each panel's question is put to promtool as a rule, its variables filled in as Grafana does."""
    panels = json.loads(BOARD.read_text())["panels"]
    asked = [t["expr"].replace("$node", ".*").replace("$tenant", ".*") for p in panels for t in p.get("targets", [])]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(asked)]
    (tmp_path / "board.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    promtool("check", "rules", "board.yml", cwd=tmp_path)
    shown = {re.sub("_(bucket|sum|count|total)$", "", name) for expr in asked for name in METRIC.findall(expr)}
    source = "".join(p.read_text() for p in (ROOT / "node/agent/metrics.py", ROOT / "fleet/metrics.py"))
    assert set(re.findall(r'"(fleet_[a-z_]+)"', source)) <= shown
    assert len({p["id"] for p in panels}) == len(panels)
