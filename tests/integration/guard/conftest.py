"""A machine for the guard: a real bucket, a real cgroup, a process in it that counts, a stand-in for the agent."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node import lock
from node.agent.custody import freezer
from node.agent.ports import Freezer
from node.bucket import cas, keys
from node.bucket.records import Fleet, Lease
from node.bucket.s3 import S3Store
from tests.testbed.process import Process, wait_until
from tests.testbed.stores import StoreServer

HERE = Path(__file__).parent
TTL_S = 3.0
MARGIN_S = 1.0


class Tenant:
    """A process in the cage that counts as long as it runs."""

    def __init__(self, cage: Freezer, folder: Path) -> None:
        self._cage = cage
        self._count = folder / "count"
        group = cage.group / secrets.token_hex(4)
        group.mkdir(parents=True)
        script = 'n=0; while :; do n=$((n+1)); echo $n >"$0.part"; mv "$0.part" "$0"; sleep 0.02; done'
        self.process = subprocess.Popen(["sh", "-c", f"echo $$ > {group}/cgroup.procs; {script}", str(self._count)])

    def count(self) -> int:
        return int(self._count.read_text() or 0) if self._count.exists() else 0

    def counts(self, within_s: float = 2.0) -> bool:
        """Whether it goes on; a busy machine may need longer for that than what stands still is watched."""
        before = self.count()
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if self.count() > before:
                return True
            time.sleep(0.02)
        return False

    def dead(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> None:
        freezer.kill(self._cage)
        self.process.kill()
        self.process.wait(60)


class MachineUnderTest:
    """One machine's guard as a real process; what happens to it is asked of its files, its bucket and its cgroup."""

    def __init__(self, server: StoreServer, cage: Freezer, folder: Path, mode: str) -> None:
        self.server = server
        self.cage = cage
        self.folder = folder
        self.mode = mode
        self.bucket = server.new_bucket()
        self.store: S3Store = server.store(self.bucket)
        self.run = folder / "run"
        self.state = folder / "state"
        self.agent_dir = folder / "agent"
        self.agent_dir.mkdir()
        self.others: list[Process] = []
        self.guard = self.new_guard()

    def new_guard(self, **changes: Any) -> Process:
        config = {
            "node": "n1", "mode": self.mode, "bucket": self.bucket, "endpoint": self.server.endpoint,
            "group": str(self.cage.group), "v2": self.cage.v2, "run": str(self.run), "state": str(self.state),
            "silence_s": 20.0, "fence_s": 120.0, "release_s": 20.0, **changes,
        }  # fmt: skip
        process = Process(
            [sys.executable, "-m", "tests.integration.guard.guard_process"],
            log=self.folder / "guard.log",
            environment={
                **self.server.environment(self.bucket),
                "GUARD_CONFIG": json.dumps(config),
                "TEST_PID": str(os.getpid()),
                "STAND_IN_DIR": str(self.agent_dir),
                "STAND_IN_RUN": str(config["run"]),
                "STAND_IN_GUARD": json.dumps(["-m", "tests.integration.guard.guard_process", "heir"]),
                "PYTHONPATH": str(HERE.parents[2]),
            },
            cwd=HERE.parents[2],
        )
        self.others.append(process)
        return process

    def found(self, ttl_s: float = TTL_S, margin_s: float = MARGIN_S) -> None:
        """Write the fleet's figures before the first guard does."""
        fleet = Fleet(nonce=cas.new_nonce(), id="f00d", mode=self.mode, ttl_s=ttl_s, margin_s=margin_s)
        cas.write(self.store, keys.FLEET, fleet, None, give_up=cas.backoff())

    def start(self, guard: Process | None = None) -> None:
        """Start the guard and wait until tenants may run."""
        (guard or self.guard).start(lambda: self.session().get("state") == "active")

    def session(self) -> dict[str, Any]:
        """What the guard wrote down last."""
        try:
            return dict(json.loads((self.run / "session.json").read_text())["session"])
        except (OSError, ValueError):
            return {}

    def lease(self) -> Lease:
        held = cas.read(self.store, keys.node("n1"), Lease)
        assert held is not None
        return held.record

    def heard(self) -> list[dict[str, Any]]:
        """What the agents heard, in order."""
        path = self.agent_dir / "heard"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def agent_pid(self) -> int | None:
        return lock.holder(self.run / "agent.lock")

    def guard_pid(self) -> int | None:
        return lock.holder(self.run / "guard.lock")

    def until(self, true: Callable[[], bool], what: str) -> None:
        try:
            wait_until(true, what, timeout_s=90)
        except AssertionError as e:
            raise AssertionError(f"{e}; the guard's log ends:\n{self.guard.tail()}") from None

    def until_state(self, state: str) -> None:
        self.until(lambda: self.session().get("state") == state, f"the session being {state}")

    def frozen(self) -> bool:
        return freezer.is_frozen(self.cage)

    def kill_everything(self) -> None:
        """Agents and guards of this run folder, as a power cut would; also one that is only about to take its lock."""
        clean = 0
        for _ in range(200):
            pids = _told_of(f"STAND_IN_RUN={self.run}")
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            clean = 0 if pids else clean + 1
            if clean == 2:
                return
            time.sleep(0.02)
        raise AssertionError("something raises the dead")

    def end(self) -> None:
        self.server.resume()
        for process in self.others:
            process.kill()
        self.kill_everything()
        self.store.close()


def _told_of(setting: str) -> list[int]:
    """Every living process that has this in its environment, zombies aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if setting.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


@pytest.fixture
def cage() -> Iterator[Freezer]:
    """The cgroup parent of this test alone, on whatever this machine has."""
    if os.geteuid() != 0:
        pytest.skip("freezing processes needs root")
    name = f"fleet-guard-test-{secrets.token_hex(4)}"
    v1 = Path("/sys/fs/cgroup/freezer")
    if v1.is_dir():
        cage = Freezer(v1 / name, v1 / name / "freezer.state", b"FROZEN", b"THAWED", v2=False)
    else:
        group = Path("/sys/fs/cgroup") / name
        cage = Freezer(group, group / "cgroup.freeze", b"1", b"0", v2=True)
    yield cage
    if cage.group.exists():
        freezer.kill(cage)
        freezer.thaw(cage)
        for path in sorted((p for p in cage.group.rglob("*") if p.is_dir()), reverse=True):
            path.rmdir()
        cage.group.rmdir()


@pytest.fixture
def tenant(cage: Freezer, tmp_path: Path) -> Iterator[Tenant]:
    """One process that counts, in the cage."""
    one = Tenant(cage, tmp_path)
    yield one
    one.end()


def _machine(server: StoreServer, cage: Freezer, tmp_path: Path, mode: str) -> Iterator[MachineUnderTest]:
    machine = MachineUnderTest(server, cage, tmp_path, mode)
    try:
        yield machine
    finally:
        machine.end()
        shutil.rmtree(machine.run, ignore_errors=True)


@pytest.fixture
def machine(minio: StoreServer, cage: Freezer, tmp_path: Path) -> Iterator[MachineUnderTest]:
    """A machine of a shared fleet; the store is everybody's and stays up. A new interpreter fits into the lease."""
    for one in _machine(minio, cage, tmp_path, "shared"):
        one.found(ttl_s=45.0, margin_s=5.0)
        yield one


@pytest.fixture
def brief_machine(own_minio: StoreServer, cage: Freezer, tmp_path: Path) -> Iterator[MachineUnderTest]:
    """A machine of a shared fleet with short times (ttl 3 s, margin 1 s) and a store of its own to be cut off from."""
    for one in _machine(own_minio, cage, tmp_path, "shared"):
        one.found()
        yield one


@pytest.fixture
def solo_machine(own_minio: StoreServer, cage: Freezer, tmp_path: Path) -> Iterator[MachineUnderTest]:
    """The only machine of its fleet, likewise."""
    for one in _machine(own_minio, cage, tmp_path, "solo"):
        one.found()
        yield one
