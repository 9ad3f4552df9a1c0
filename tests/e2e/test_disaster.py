"""A machine is gone for good: a new one comes back from the bucket and the key alone."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box, running
from tests.e2e.ledger import Ledger
from tests.testbed.engine import Engine
from tests.testbed.stores import StoreServer


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """The old machine's and the new one's."""
    made = [Path(tempfile.mkdtemp(prefix="fleet-e2e-", dir="/var/tmp")) for _ in range(2)]
    yield made[0], made[1]
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


def burn(box: Box) -> None:
    """Everything of the machine ends at once, and its disk with it; nothing is said to anybody."""
    box.process.signal(signal.SIGKILL)
    for part in ("controller", "guard", "agent"):
        box.kill(part)
    names = box.docker("ps", "-aq", "--filter", f"name=^{box.fleet_name}-").split()
    if names:
        box.docker("rm", "-f", *names)
    box.unmount(box.state)
    shutil.rmtree(box.state)


def test_a_new_machine_brings_everything_back_from_the_bucket_and_the_key(
    engine: Engine, images: str, minio: StoreServer, folders: tuple[Path, Path]
) -> None:
    store = minio.environment(minio.new_bucket(), "fleet")
    old = Box(folders[0], engine.host, store)
    (folders[0] / "key").write_text("for the tenant alone")
    try:
        old.start()
        ledger = Ledger(old, "books")
        ledger.up("--secret", f"key=@{folders[0]}/key")
        ledger.write(20)
        token, key = old.token(), (old.state / "secrets.key").read_text().strip()
        burn(old)
    finally:
        old.stop()
    with running(Box(folders[1], engine.host, store, FLEET_TOKEN=token, FLEET_SECRETS_KEY=key)) as new:
        view = new.wait_state("books", "running", timeout_s=120)
        assert view["epoch"] == 2
        ledger.box = new
        ledger.check()
        assert new.docker("exec", new.container("books"), "cat", "/run/secrets/key") == "for the tenant alone"
