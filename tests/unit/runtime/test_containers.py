from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node.agent.ports import Container, JobSpec, SidecarSpec, Volume, WorkerSpec
from node.agent.runtime import containers
from node.agent.runtime.containers import Place

VOLUME = Volume(Path("/s/t/acme/data"), Path("/s/t/acme/meta"), Path("/s/t/acme/run"), Path("/s/t/acme/marker"))
PLACE = Place("fleet", "/fleet", "fleet/sidecar:latest", "fleet-open", "fleet-closed")
WORKER = WorkerSpec(
    tenant="acme",
    epoch=7,
    session=3,
    generation=2,
    image="fleet/worker:latest",
    uid=200_001,
    volume=VOLUME,
    port=8080,
    memory_bytes=128 << 20,
    cpus=0.5,
    pids=128,
    env={"NODE_TENANT": "acme", "A": "1"},
    writable=("/var/cache/x",),
    app=Path("/s/apps/abc"),
    secrets=Path("/run/fleet/t/acme/secrets"),
)
SIDECAR = SidecarSpec("acme", 7, 3, 200_001, VOLUME, Path("/run/fleet/sidecars/acme"))
JOB = JobSpec("acme", 7, 3, 200_001, VOLUME, Path("/run/fleet/sidecars/acme"), ("restore", "-o", "/data/app.db"))


def bind(source: str, target: str, *, read_only: bool = False) -> containers.Options:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def labels(role: str, generation: int) -> dict[str, str]:
    return {
        "fleet.name": "fleet",
        "fleet.tenant": "acme",
        "fleet.role": role,
        "fleet.epoch": "7",
        "fleet.session": "3",
        "fleet.generation": str(generation),
    }


def test_a_worker_is_told_to_the_engine_in_every_bound() -> None:
    assert containers.worker(PLACE, WORKER) == {
        "Image": "fleet/worker:latest",
        "User": "200001:200001",
        "Hostname": "acme",
        "Env": ["A=1", "NODE_TENANT=acme"],
        "Labels": labels("worker", 2),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Mounts": [
                bind("/s/t/acme/data", "/data"),
                bind("/s/t/acme/run", "/run/fleet", read_only=True),
                bind("/s/apps/abc", "/app", read_only=True),
                bind("/run/fleet/t/acme/secrets", "/run/secrets", read_only=True),
            ],
            "Tmpfs": {
                "/tmp": "rw,exec,nosuid,nodev,mode=1777,size=67108864",
                "/var/cache/x": "rw,exec,nosuid,nodev,mode=0700,size=67108864,uid=200001,gid=200001",
            },
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 134217728,
            "MemorySwap": 134217728,
            "NanoCpus": 500000000,
            "PidsLimit": 128,
            "Ulimits": [
                {"Name": "nofile", "Soft": 8192, "Hard": 8192},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "OomScoreAdj": 500,
            "CgroupParent": "/fleet",
            "LogConfig": {"Type": "local", "Config": {"max-size": "4m", "max-file": "2", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},
            "Init": True,
            "IpcMode": "private",
            "ShmSize": 67108864,
            "NetworkMode": "fleet-closed",
            "Dns": ["127.0.0.1"],
        },
    }


def test_a_sidecar_has_the_host_network_both_folders_and_its_configuration() -> None:
    assert containers.sidecar(PLACE, SIDECAR) == {
        "Image": "fleet/sidecar:latest",
        "User": "200001:200001",
        "Cmd": ["replicate", "-config", "/etc/litestream/litestream.yml"],
        "Env": [],
        "Labels": labels("sidecar", 0),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "Mounts": [
                bind("/s/t/acme/data", "/data"),
                bind("/s/t/acme/meta", "/meta"),
                bind("/run/fleet/sidecars/acme", "/etc/litestream", read_only=True),
            ],
            "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=67108864"},
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 536870912,
            "MemorySwap": 536870912,
            "NanoCpus": 1000000000,
            "PidsLimit": 128,
            "Ulimits": [
                {"Name": "nofile", "Soft": 8192, "Hard": 8192},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "OomScoreAdj": 300,
            "CgroupParent": "/fleet",
            "LogConfig": {"Type": "local", "Config": {"max-size": "4m", "max-file": "2", "compress": "false"}},
            "RestartPolicy": {"Name": "no"},
            "IpcMode": "none",
            "NetworkMode": "host",
        },
    }


def test_a_job_is_a_sidecar_with_another_command() -> None:
    job, sidecar = containers.job(PLACE, JOB), containers.sidecar(PLACE, SIDECAR)
    assert job.pop("Cmd") == ["restore", "-o", "/data/app.db"]
    assert job.pop("Labels") == labels("job", 0)
    del sidecar["Cmd"], sidecar["Labels"]
    assert job == sidecar


def test_a_worker_with_egress_is_on_the_open_network_and_asks_the_usual_name_servers() -> None:
    host = containers.worker(PLACE, replace(WORKER, egress=True))["HostConfig"]
    assert host["NetworkMode"] == "fleet-open"
    assert "Dns" not in host


def test_a_volume_that_an_image_asks_for_becomes_scratch_and_never_hides_data() -> None:
    host = containers.worker(PLACE, WORKER, ["/data", "/pb_data"])["HostConfig"]
    assert set(host["Tmpfs"]) == {"/tmp", "/var/cache/x", "/pb_data"}
    assert [m["Target"] for m in host["Mounts"]].count("/data") == 1


def test_scratch_takes_at_most_half_of_a_small_tenants_memory() -> None:
    host = containers.worker(PLACE, replace(WORKER, memory_bytes=32 << 20))["HostConfig"]
    assert f"size={16 << 20}" in host["Tmpfs"]["/tmp"]


def test_a_command_of_the_spec_replaces_the_images_arguments() -> None:
    assert containers.worker(PLACE, replace(WORKER, command=("serve", "--x")))["Cmd"] == ["serve", "--x"]


@pytest.mark.parametrize("spec", [WORKER, SIDECAR, JOB])
def test_a_name_is_the_same_for_the_same_purpose(spec: WorkerSpec | SidecarSpec | JobSpec) -> None:
    assert containers.name_of("fleet", spec) == containers.name_of("fleet", replace(spec, epoch=8))


def test_jobs_of_one_tenant_are_told_apart_by_what_they_do() -> None:
    other = replace(JOB, args=("restore", "-o", "/data/other.db"))
    assert containers.name_of("fleet", JOB) != containers.name_of("fleet", other)


def test_a_container_is_read_back_from_its_labels() -> None:
    options = containers.worker(PLACE, WORKER)
    found = containers.container("fleet-acme-worker", options["Labels"], running=True, address="10.0.0.2")
    assert found == Container("fleet-acme-worker", "acme", "worker", 7, 3, 2, running=True, address="10.0.0.2")
    assert containers.ended(found, 137, oom_killed=True) == Container(
        "fleet-acme-worker", "acme", "worker", 7, 3, 2, running=False, exit_code=137, oom_killed=True
    )


def test_what_has_another_role_or_none_is_no_tenants_container() -> None:
    assert containers.container("x", {"fleet.name": "fleet"}, running=True) is None
    assert containers.container("x", {"fleet.name": "fleet", "fleet.role": "gateway"}, running=True) is None
