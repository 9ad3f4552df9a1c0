"""What happens to a machine: its agent is upgraded, its bucket is silent for a while, it reboots."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.bucket import cas, keys
from node.bucket.records import Fleet
from tests.e2e.box import ROOT, Box, running
from tests.testbed.engine import Engine
from tests.testbed.private import inside
from tests.testbed.stores import StoreServer

APPROVALS = ROOT / "tests/e2e/apps/approvals"
TTL_S, MARGIN_S = 4.0, 1.0


class Asking:
    """GETs to a tenant, one after the other, for as long as the block lasts."""

    def __init__(self, box: Box, tenant: str) -> None:
        self._box, self._tenant = box, tenant
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[Any] = []

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(self._box.tenant(self._tenant, "GET", "/hello")[0])
            except OSError as e:
                self.answers.append(e)
            time.sleep(0.01)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def containers(box: Box, tenant: str) -> list[str]:
    """Ids and start times of a tenant's containers."""
    names = [box.container(tenant, role) for role in ("worker", "sidecar")]
    return box.docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}}", *names).splitlines()


def fenced(box: Box) -> float:
    """How often this machine says that it froze its tenants."""
    _, body = box.request("GET", f"{box.agent}/metrics", Authorization=f"Bearer {box.token()}")
    lines = [line for line in bytes(body).decode().splitlines() if line.startswith("fleet_fenced_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def runs(box: Box, tenant: str) -> set[str]:
    """Ids of a tenant's runs."""
    return set(box.fleet("runs", tenant, "-o", "name").out.split())


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A short path on a real disk."""
    path = Path(tempfile.mkdtemp(prefix="fleet-e2e-", dir="/var/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# ---- a reload


def test_a_reload_brings_a_new_agent_and_touches_no_tenant(box: Box) -> None:
    box.fleet("up", "acme", "--app", str(APPROVALS))
    before, agent, guard = containers(box, "acme"), box.pid("agent"), box.pid("guard")
    with Asking(box, "acme") as asking:
        for _ in range(2):
            old = box.pid("agent")
            box.process.signal(signal.SIGHUP)
            box.eventually(lambda old=old: box.pid("agent") not in (None, old), "a new agent")  # type: ignore[misc] # old is bound for this turn
            box.eventually(box.ready, "a ready node")
    assert agent is not None
    assert box.pid("agent") != agent
    assert box.pid("guard") == guard
    assert containers(box, "acme") == before
    assert len(asking.answers) > 10
    assert set(asking.answers) == {200}
    # The new agent has it in hand: it acts on it, and its door to the node answers.
    assert box.wait_state("acme", "running")["epoch"] == 1
    box.fleet("run", "acme", "approve", "--id", "after")
    assert box.json("restart", "acme")["state"] == "running"
    assert runs(box, "acme") == {"after"}
    assert box.json("down", "acme")["state"] == "released"


# ---- the bucket silent for longer than a lease


def test_a_shared_machine_freezes_when_its_lease_runs_out_and_thaws_where_it_was(
    engine: Engine, images: str, own_minio: StoreServer
) -> None:
    bucket = own_minio.new_bucket()
    store = own_minio.store(bucket, "fleet/")
    short = Fleet(nonce=cas.new_nonce(), id="0123456789abcdef", mode="shared", ttl_s=TTL_S, margin_s=MARGIN_S)
    cas.write(store, keys.FLEET, short, None, give_up=cas.backoff())
    store.close()
    env = own_minio.environment(bucket, "fleet")
    with own_folder() as folder, running(Box(folder, engine.host, env, FLEET_MODE="shared")) as box:
        box.fleet("up", "acme", "--app", str(APPROVALS), "--rpo", "0")
        box.fleet("run", "acme", "approve", "--id", "before")
        before, session = containers(box, "acme"), box.json("nodes")[0]["session"]
        assert fenced(box) == 0
        own_minio.pause()
        try:
            box.eventually(lambda: box.tenant("acme", "GET", "/hello")[0] == 503, "503 of a frozen tenant")
            status, problem = box.tenant("acme", "GET", "/hello")
            assert (status, "store_unreachable" in str(problem)) == (503, True)
            assert box.wait_state("acme", "frozen")["state"] == "frozen"
            assert asleep(box, "acme"), "no process of it runs"
            assert [n["state"] for n in box.json("nodes")] == ["fenced"]
        finally:
            own_minio.resume()
        box.eventually(lambda: box.tenant("acme", "GET", "/hello")[0] == 200, "answers again")
        view = box.wait_state("acme", "running")
        assert (view["epoch"], containers(box, "acme")) == (1, before)
        assert box.json("nodes")[0]["session"] == session, "nobody revoked it"
        assert runs(box, "acme") == {"before"}
        box.fleet("run", "acme", "approve", "--id", "after")
        assert fenced(box) == 1
        assert box.json("down", "acme")["state"] == "released"


@contextlib.contextmanager
def another_boot_id() -> Iterator[None]:
    """In this run's own mounts the kernel tells another boot id."""
    if not inside():
        pytest.skip("another boot id needs the namespaces that ./tests/run makes")
    told = "/proc/sys/kernel/random/boot_id"
    with tempfile.NamedTemporaryFile("w") as f:
        f.write(f"{uuid.uuid4()}\n")
        f.flush()
        subprocess.run(["mount", "--bind", f.name, told], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", told], check=True)


def asleep(box: Box, tenant: str) -> bool:
    """Whether the kernel says that the worker's process is frozen: whichever cgroup it is in."""
    pid = box.docker("inspect", "-f", "{{.State.Pid}}", box.container(tenant)).strip()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "freezer" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text().strip() == "FROZEN"
        if number == "0":
            events = Path(f"/sys/fs/cgroup{path}/cgroup.events")
            if events.exists() and "frozen 1" in events.read_text():
                return True
    return False


def test_a_machine_alone_runs_on_while_its_bucket_is_silent(
    engine: Engine, images: str, own_minio: StoreServer
) -> None:
    bucket = own_minio.new_bucket()
    store = own_minio.store(bucket, "fleet/")
    short = Fleet(nonce=cas.new_nonce(), id="0123456789abcdef", mode="solo", ttl_s=TTL_S, margin_s=MARGIN_S)
    cas.write(store, keys.FLEET, short, None, give_up=cas.backoff())
    store.close()
    with own_folder() as folder, running(Box(folder, engine.host, own_minio.environment(bucket, "fleet"))) as box:
        box.fleet("up", "acme", "--app", str(APPROVALS))
        before = containers(box, "acme")
        own_minio.pause()
        try:
            with Asking(box, "acme") as asking:
                time.sleep(3 * TTL_S)
        finally:
            own_minio.resume()
        assert set(asking.answers) == {200}
        assert fenced(box) == 0
        box.eventually(lambda: box.status("acme")["lag_s"] == 0, "replication caught up")
        assert containers(box, "acme") == before
        assert box.json("down", "acme")["state"] == "released"


# ---- a reboot


def test_after_a_reboot_every_tenant_comes_back_by_itself_with_its_data(own_box: Box, engine: Engine) -> None:
    """A reboot, as far as one can be had in a test: every process of the fleet dies at once, the engine stops and
    starts, and with it every container has ended; what is on tmpfs and what was mounted is gone, and the kernel's boot
    id is another one. What is not simulated: frames that the disk has lost, and clocks that begin anew."""
    box = own_box
    for name, rpo in (("careful", "0"), ("quick", "1s")):
        box.fleet("up", name, "--app", str(APPROVALS), "--rpo", rpo)
        box.fleet("run", name, "approve", "--id", "before", "--input", '{"what": "tea"}')
    at = box.clock()
    box.eventually(
        lambda: (s := box.status("quick"))["lag_s"] == 0 and (s["last_confirmed"] or 0) > at, "replication caught up"
    )
    box.fleet("up", "asleep", "--app", str(APPROVALS))
    box.fleet("down", "asleep")

    box.process.kill()
    for part in ("guard", "agent", "controller"):
        box.kill(part)
    box.kill_all_containers()
    engine.stop()
    engine.start()
    shutil.rmtree(box.run_dir)
    for tenant in ("careful", "quick", "asleep"):
        box.unmount(box.state / "t" / tenant)
    with another_boot_id():
        box.start()
        came_back(box)


def came_back(box: Box) -> None:
    """Everything that was up is up again, in a new epoch."""
    for name in ("careful", "quick"):
        view = box.wait_state(name, "running", timeout_s=120)
        assert view["epoch"] == 2, "a machine that went down may have lost its last frames"
        assert runs(box, name) == {"before"}
        box.fleet("signal", name, "before", "word", '"granted"')
        done = box.fleet("run", name, "approve", "--id", "before", "--input", '{"what": "tea"}', "--wait")
        assert done.out.strip() == '"tea: granted"'
    assert box.status("asleep")["state"] == "released", "what was down stays down"
    assert box.json("up", "asleep")["state"] == "running"


@pytest.mark.parametrize("again", [1, 2])
def test_a_fleet_that_was_stopped_in_order_leaves_nothing_running(own_box: Box, again: int) -> None:
    box = own_box
    box.fleet("up", "acme", "--app", str(APPROVALS))
    box.fleet("run", "acme", "approve", "--id", "before")
    for _ in range(again):
        box.process.signal(signal.SIGTERM)
        box.eventually(lambda: not box.process.alive, "its end")
        assert box.docker("ps", "-q", "--filter", f"name=^{box.fleet_name}-") == ""
        assert (box.pid("guard"), box.pid("agent"), box.controller_pid()) == (None, None, None)
        box.start()
        view = box.wait_state("acme", "running")
        assert runs(box, "acme") == {"before"}
    assert view["epoch"] == 1, "released in order, on its own volume"
