"""`fleet doctor` on a machine that has everything, and on one that lacks one thing: it finds it and names the fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node.agent.custody import fleetfile
from tests.integration.cli.lying_front import lying_front
from tests.testbed.engine import Engine
from tests.testbed.stores import StoreServer

FLEET = Path(sys.executable).with_name("fleet")
ALL = {"token", "bucket", "sidecars", "clock", "fleet", "controllers"}
ALL |= {"engine", "cgroup", "images", "firewall", "quota", "disk"}


@dataclass(frozen=True)
class Machine:
    """Where doctor runs: settings of a machine that is as it should be, but for what a test changes."""

    env: dict[str, str]
    store: StoreServer
    bucket: str

    def doctor(self, *before: str, **changes: str) -> dict[str, Any]:
        """Its findings by name. It ends with 1 exactly if one of them is bad, and then names all that are."""
        command = [*before, str(FLEET), "doctor", "-o", "json"]
        env = {**self.env, **changes}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
        found = json.loads(done.stdout)
        bad = [f["name"] for f in found if not f["ok"]]
        assert done.returncode == (1 if bad else 0), done
        assert all(name in done.stderr for name in bad)
        assert "Traceback" not in done.stderr
        return {f["name"]: f for f in found}

    def finds(self, name: str, *says: str, before: tuple[str, ...] = (), **changes: str) -> dict[str, Any]:
        """That this one is bad, with what is seen and a fix that say this much; answers all findings."""
        found = self.doctor(*before, **changes)
        assert found[name]["ok"] is False, found
        for part in says:
            assert part in found[name]["detail"] + " → " + found[name]["fix"]
        assert found[name]["fix"]
        return found


@pytest.fixture
def machine(tmp_path: Path, engine: Engine, images: str, minio: StoreServer) -> Machine:
    """A machine on which everything is well."""
    bucket = minio.new_bucket()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLEET_", "AWS_"))}
    own = {"DOCKER_HOST": engine.host, "FLEET_STATE_DIR": str(tmp_path / "state"), "FLEET_TOKEN": "a-token"}
    return Machine({**clean, **minio.environment(bucket, "fleet"), **own}, minio, bucket)


def test_a_machine_that_has_everything_is_well(machine: Machine) -> None:
    found = machine.doctor()
    assert {name: f["detail"] for name, f in found.items() if not f["ok"]} == {}
    assert set(found) == ALL


def test_what_it_says_is_readable_and_the_token_is_not_in_it(machine: Machine) -> None:
    env = {**machine.env, "DOCKER_HOST": "unix:///nowhere.sock"}
    done = subprocess.run([FLEET, "doctor"], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert "ok   bucket" in done.stdout
    assert "BAD  engine" in done.stdout
    assert "fix: apt-get install docker.io" in done.stdout
    assert "a-token" not in done.stdout + done.stderr


def test_no_engine(machine: Machine) -> None:
    found = machine.finds("engine", "apt-get install docker.io", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert found["bucket"]["ok"], "the rest is looked at all the same"


def test_an_engine_without_permission(machine: Machine) -> None:
    """A user who is not root; that he may read is for the interpreter's sake, which may lie in root's home."""
    nobody = (
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search",
    )  # fmt: skip
    found = machine.finds("engine", "as root", "group docker", before=nobody)
    assert "root" in found["firewall"]["fix"]


def test_an_engine_that_does_not_answer(machine: Machine, engine: Engine) -> None:
    engine.pause()
    try:
        machine.finds("engine", "restart the engine")
    finally:
        engine.resume()


def test_a_bucket_that_is_unreachable(machine: Machine) -> None:
    machine.finds("bucket", "http://127.0.0.1:9", "FLEET_S3_ENDPOINT", FLEET_S3_ENDPOINT="http://127.0.0.1:9")


def test_a_bucket_that_is_not_there(machine: Machine) -> None:
    machine.finds("bucket", "no-such-bucket", "create the bucket", FLEET_BUCKET="s3://no-such-bucket")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(machine: Machine, name: str) -> None:
    machine.env[name] = "WRONGWRONGWRONG"
    found = machine.finds("bucket", "credentials", "AWS_SECRET_ACCESS_KEY")
    assert "WRONGWRONGWRONG" not in json.dumps(found)


@pytest.mark.parametrize("ignores", ["If-None-Match", "If-Match"])
def test_a_bucket_without_conditional_writes(machine: Machine, ignores: str) -> None:
    with lying_front(machine.store, ignores=ignores) as endpoint:
        machine.finds("bucket", ignores, "no conditional writes", "MinIO", FLEET_S3_ENDPOINT=endpoint)


@pytest.mark.parametrize(("shift_s", "way"), [(30.0, "behind the store"), (-30.0, "ahead of the store")])
def test_a_clock_that_is_off_the_stores(machine: Machine, shift_s: float, way: str) -> None:
    with lying_front(machine.store, shift_s=shift_s) as endpoint:
        found = machine.finds("clock", way, "NTP", FLEET_S3_ENDPOINT=endpoint)
    assert found["bucket"]["ok"]


def test_a_clock_that_is_a_little_off_is_well(machine: Machine) -> None:
    with lying_front(machine.store, shift_s=3.0) as endpoint:
        assert machine.doctor(FLEET_S3_ENDPOINT=endpoint)["clock"]["ok"]


def test_a_missing_image(machine: Machine) -> None:
    machine.finds("images", "acme/worker", "images/build --prefix acme", FLEET_IMAGE_PREFIX="acme")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MiB."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as f:
        f.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(machine: Machine, small_disk: Path) -> None:
    assert machine.doctor(FLEET_STATE_DIR=str(small_disk / "fleet"))["disk"]["ok"]
    room = shutil.disk_usage(small_disk).free
    with (small_disk / "filling").open("wb") as f:
        os.posix_fallocate(f.fileno(), 0, int(room * 0.97))
    machine.finds("disk", str(small_disk), "FLEET_STATE_DIR", FLEET_STATE_DIR=str(small_disk / "fleet"))


def test_no_quota_support(machine: Machine) -> None:
    found = machine.finds("quota", "mkfs.ext4", "apt-get install e2fsprogs", PATH="/nowhere")
    assert not found["firewall"]["ok"]
    assert "apt-get install iptables" in found["firewall"]["fix"]


def test_another_fleets_state_folder(machine: Machine, tmp_path: Path) -> None:
    other = machine.store.store(machine.store.new_bucket(), "fleet/")
    fleetfile.establish(other, tmp_path / "state", "one", "solo")
    other.close()
    machine.finds("fleet", "no fleet yet", str(tmp_path / "state"), "FLEET_STATE_DIR")
    mine = machine.store.store(machine.bucket, "fleet/")
    held, _ = fleetfile.establish(mine, tmp_path / "mine", "one", "solo")
    mine.close()
    machine.finds("fleet", held.record.id, "FLEET_BUCKET")
    assert machine.doctor(FLEET_STATE_DIR=str(tmp_path / "mine"))["fleet"]["ok"]


def test_a_state_folder_whose_memory_is_damaged(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/fleet.json").write_text("{")
    machine.finds("fleet", str(tmp_path / "state/fleet.json"))


def test_no_token(machine: Machine) -> None:
    machine.finds("token", "FLEET_TOKEN", "fleet serve", FLEET_TOKEN="")


def test_a_setting_that_does_not_exist_is_named(machine: Machine) -> None:
    env = {**machine.env, "FLEET_BUKCET": "s3://typo"}
    done = subprocess.run([FLEET, "doctor"], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "FLEET_BUKCET" in done.stderr) == (2, True)
