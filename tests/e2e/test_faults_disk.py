"""No room: a tenant that has used up its allowance, and a machine whose disk is full. Writes fail and say why, nothing
that was acknowledged is lost, and it goes on by itself when there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box, running
from tests.e2e.ledger import APP, FILE, Ledger
from tests.testbed.engine import Engine
from tests.testbed.stores import StoreServer

DISK_BYTES = 640 << 20


def fill(ledger: Ledger, filling: int) -> int:
    """Write rows of this size until one is refused; answers with which status."""
    for _ in range(400):
        status = ledger.post(filling=filling, timeout_s=12)
        if status != 200:
            return status
    raise AssertionError(f"{ledger.tenant} could write 400 rows of {filling} bytes")


def test_a_tenant_that_has_used_up_its_allowance_can_go_down_and_come_up(box: Box) -> None:
    ledger = Ledger(box, "full")
    ledger.up("--disk", "16m")
    assert fill(ledger, 256 << 10) == 507
    assert len(ledger.acknowledged) > 3
    ledger.check()
    assert box.status("full")["state"] == "running"
    assert box.json("down", "full")["state"] == "released"
    assert box.json("up", "full")["state"] == "running"
    ledger.check()
    ledger.check_bucket()
    box.fleet("up", "full", "--disk", "64m")
    ledger.write(1)
    ledger.check()
    box.fleet("down", "full")


@pytest.fixture
def small(engine: Engine, images: str, minio: StoreServer) -> Iterator[Box]:
    """A fleet whose state folder is a disk of its own, with little room."""
    path = Path(tempfile.mkdtemp(prefix="fleet-e2e-", dir="/var/tmp"))
    image, state = path / "disk.ext4", path / "state"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    state.mkdir()
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(state)], check=True)
        with running(Box(path, engine.host, minio.environment(minio.new_bucket(), "fleet"))) as box:
            yield box
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=False)
        shutil.rmtree(path, ignore_errors=True)


def occupy(folder: Path) -> Path:
    """Take all the room that there is."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        for step in (1 << 20, 4096):
            while True:
                room = os.statvfs(folder)
                if room.f_bavail * room.f_frsize < step:
                    break
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
                except OSError:
                    break
    return ballast


def test_a_machine_whose_disk_is_full_takes_no_tenant_and_loses_no_row(small: Box) -> None:
    ledger = Ledger(small, "squeezed")
    ledger.up()
    ledger.write(5)
    ballast = occupy(small.state)
    assert fill(ledger, 64 << 10) != 200

    words = ("--app", str(APP), "--db", FILE, "--disk", "64m", "--timeout", "10s")
    done = small.fleet("up", "latecomer", *words, check=False)
    assert done.code in (1, 4), done
    assert "latecomer" in done.err
    assert "No space left" in done.err or "MiB are free" in done.err
    assert small.status("latecomer")["reason"] == "disk_full"

    ballast.unlink()
    # Its file system may have stopped at the first write that found no room: a new one comes from the bucket by itself.
    small.eventually(lambda: ledger.post() == 200, "a write once there is room again")
    ledger.write(3)
    ledger.check()
    ledger.check_bucket()
    (garbage,) = small.json("gc", "squeezed", "--dry-run")
    assert (garbage["owned"], garbage["silent"]) == (True, [])
    assert not [i for report in garbage["nodes"] for i in report["items"] if i["goes"]]  # all of it is young
    small.wait_state("latecomer", "running")
    for name in ("squeezed", "latecomer"):
        small.fleet("down", name)
