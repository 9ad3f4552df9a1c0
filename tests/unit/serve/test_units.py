"""The systemd units that are shipped: valid, and without what would hide a tenant's mounts from the engine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SHIPPED = Path(__file__).resolve().parents[3] / "deploy/systemd"
UNITS = sorted(path.name for path in SHIPPED.glob("*.service"))
NODES = ("fleet.service", "fleet-node.service")
# Each of these gives a service a mount namespace of its own (systemd.exec(5)): what the agent mounts stays in it.
HIDES_MOUNTS = {
    "PrivateMounts", "PrivateTmp", "PrivateDevices", "PrivateUsers", "PrivateIPC", "ProtectSystem", "ProtectHome",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc",
    "ProtectClock", "ProtectHostname", "ProcSubset", "ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths",
    "ExecPaths", "NoExecPaths", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "MountAPIVFS", "MountImages",
    "ExtensionImages", "ExtensionDirectories", "RootDirectory", "RootImage", "DynamicUser", "NetworkNamespacePath",
    "LogNamespace",
}  # fmt: skip


def section(unit: str, name: str) -> dict[str, list[str]]:
    """Options of a section, each with all of its values."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in (SHIPPED / unit).read_text().splitlines():
        if line.startswith("["):
            inside = line == f"[{name}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def test_every_unit_is_here() -> None:
    assert UNITS == ["fleet-controller.service", "fleet-node.service", "fleet.service"]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine: apt-get install systemd")
    true = shutil.which("true") or "/bin/true"
    lines = []
    for line in (SHIPPED / unit).read_text().splitlines():
        key, _, value = line.partition("=")
        if key.startswith("Exec"):
            line = f"{key}={true} {value.partition(' ')[2]}"
        elif key in ("Requires", "After", "Conflicts"):
            # Other units of a real machine, which is not this one.
            line = f"{key}={' '.join(name for name in value.split() if name.endswith('.target'))}"
        lines.append(line)
    (tmp_path / unit).write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if unit in line]
    assert said == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", NODES)
def test_the_engine_sees_what_a_node_mounts(unit: str) -> None:
    assert set(section(unit, "Service")) & HIDES_MOUNTS == set()


@pytest.mark.parametrize("unit", NODES)
def test_stopping_or_reloading_a_node_does_not_kill_what_it_started(unit: str) -> None:
    service = section(unit, "Service")
    assert service["KillMode"] == ["process"], "guard, agent and tenants are ended in order, or not at all"
    assert "HUP" in service["ExecReload"][0]
    assert int(service["TimeoutStopSec"][0]) >= 120, "the last byte is confirmed first"


@pytest.mark.parametrize("unit", UNITS)
def test_a_reboot_brings_it_back(unit: str) -> None:
    assert section(unit, "Install")["WantedBy"] == ["multi-user.target"]
    assert section(unit, "Service")["Restart"] == ["always"]


@pytest.mark.parametrize("unit", UNITS)
def test_what_it_runs_is_what_is_installed(unit: str) -> None:
    program, *words = section(unit, "Service")["ExecStart"][0].split()
    assert program.startswith("/opt/fleet/.venv/bin/")
    assert [program.rpartition("/")[2], *words] in (
        ["fleet", "serve"],
        ["fleet", "node"],
        ["python", "-m", "fleet.app"],
    )


def test_no_unit_holds_a_secret() -> None:
    for unit in UNITS:
        assert not any("TOKEN" in v or "KEY" in v for v in section(unit, "Service").get("Environment", []))
