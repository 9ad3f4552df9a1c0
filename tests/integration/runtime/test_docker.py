"""The runtime port on a real engine: what may be repeated, what is gone, what is frozen, what died."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from node.agent.ports import Container, JobSpec, RuntimeFailed
from node.agent.runtime import check, groups, network
from node.agent.runtime.docker import DockerRuntime
from tests.integration.runtime.conftest import Bench
from tests.testbed.engine import Engine

pytestmark = pytest.mark.engine

SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)"


def test_every_call_may_be_repeated_and_what_is_gone_is_fine(bench: Bench) -> None:
    runtime = bench.runtime
    runtime.ensure()
    name = runtime.create(bench.worker("acme", SLEEP))
    assert runtime.create(bench.worker("acme", SLEEP)) == name
    first = runtime.start(name)
    assert first.running
    assert first.address
    assert runtime.start(name) == first
    runtime.stop(name, 2)
    runtime.stop(name, 2)
    runtime.kill(name)
    assert not bench.ended(name).running
    for _ in range(2):
        runtime.remove(name)
        runtime.stop(name, 2)
        runtime.kill(name)
    assert runtime.containers() == []
    assert runtime.usage(name) is None


WATCHES_ITS_QUOTA = """
import pathlib, time
files = [pathlib.Path('/sys/fs/cgroup', name) for name in ('cpu/cpu.cfs_quota_us', 'cpu.max')]
said = ''
while True:
    now = next(file for file in files if file.exists()).read_text().split()[0]
    if now != said:
        print(now, flush=True)
    said = now
    time.sleep(0.02)
"""


def test_a_container_sees_what_it_is_allowed_to_compute_more_and_less(bench: Bench) -> None:
    running = bench.run(bench.worker("acme", WATCHES_ITS_QUOTA, cpus=0.5))
    said: list[str] = []
    for line in bench.runtime.logs(running.name, tail=None, since=None, follow=True):
        said.append(line.decode().split()[1])
        cpus = {1: 1.0, 2: 0.25}.get(len(said))
        if cpus is None:
            break
        bench.runtime.allow(running, cpus)
    assert said == ["50000", "100000", "25000"]
    bench.runtime.kill(running.name)
    bench.ended(running.name)
    bench.runtime.allow(running, 1.0)


def test_a_container_that_runs_is_never_replaced(bench: Bench) -> None:
    running = bench.run(bench.worker("acme", SLEEP))
    with pytest.raises(RuntimeFailed) as raised:
        bench.runtime.create(bench.worker("acme", SLEEP))
    assert raised.value.reason == "running"
    assert bench.runtime.containers() == [running]


def test_a_container_says_which_epoch_session_and_generation_it_is_of(bench: Bench) -> None:
    spec = replace(bench.worker("acme", SLEEP), epoch=9, session=4, generation=3)
    bench.run(spec)
    bench.runtime.start(bench.runtime.create(bench.sidecar("beta")))
    found = {c.tenant: c for c in bench.runtime.containers()}
    assert (found["acme"].role, found["acme"].epoch, found["acme"].session, found["acme"].generation) == (
        "worker",
        9,
        4,
        3,
    )
    assert (found["beta"].role, found["beta"].address) == ("sidecar", "")


def test_a_dead_containers_address_stays_its_tenants(
    bench: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = network.address
    monkeypatch.setattr(network, "address", lambda net, _, taken: address(net, "all wish for the same", taken))
    before = bench.run(bench.worker("one", SLEEP))
    engine.stop()  # all containers end; nobody has heard of it yet
    engine.start()
    bench.runtime.ensure()
    other = bench.run(bench.worker("two", SLEEP))
    assert other.address != before.address
    assert bench.run(bench.worker("one", SLEEP)).address == before.address


def test_two_fleets_on_one_engine_do_not_see_each_other(bench: Bench, engine: Engine) -> None:
    bench.run(bench.worker("acme", SLEEP))
    other = DockerRuntime("ft-other", engine=engine.host)
    assert other.containers() == []
    other.teardown()
    assert len(bench.runtime.containers()) == 1


def test_a_worker_hears_sigterm_though_it_does_not_listen_for_it(bench: Bench) -> None:
    name = bench.run(bench.worker("acme", SLEEP)).name
    bench.runtime.stop(name, 60)
    assert bench.ended(name).exit_code == 143  # at once, not killed (137) after a minute


def test_a_worker_may_end_in_order(bench: Bench) -> None:
    code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n" + SLEEP
    name = bench.run(bench.worker("acme", code)).name
    for _ in bench.runtime.logs(name, tail=None, since=None, follow=True):
        break
    bench.runtime.stop(name, 30)
    assert bench.ended(name).exit_code == 7


def test_an_image_that_is_not_here_is_named(bench: Bench) -> None:
    assert not bench.runtime.image_exists("nope/nope:1")
    with pytest.raises(RuntimeFailed, match="nope/nope:1") as raised:
        bench.runtime.create(bench.worker("acme", SLEEP, image="nope/nope:1"))
    assert raised.value.reason == "no_image"
    assert not raised.value.retryable


def test_a_command_that_an_image_does_not_have_is_an_error_at_the_start(
    bench: Bench, docker_client: docker.DockerClient
) -> None:
    api = docker_client.api
    made = api.create_container("fleet-test/python:latest")
    api.commit(made["Id"], repository="fleet-test/nothing", tag="latest", changes=['ENTRYPOINT ["/nope"]'])
    api.remove_container(made["Id"])
    name = bench.runtime.create(bench.worker("acme", SLEEP, image="fleet-test/nothing:latest"))
    try:
        bench.runtime.start(name)
    except RuntimeFailed as e:
        assert e.reason == "bad_command"
    else:
        assert bench.ended(name).exit_code == 127


def test_a_volume_that_is_not_there_is_never_made_by_the_engine(bench: Bench, tmp_path: Path) -> None:
    spec = bench.worker("acme", SLEEP)
    gone = replace(spec, volume=replace(spec.volume, data=tmp_path / "gone"))
    with pytest.raises(RuntimeFailed) as raised:
        bench.runtime.start(bench.runtime.create(gone))
    assert raised.value.reason == "no_volume"
    assert not (tmp_path / "gone").exists()


def test_a_volume_that_an_image_asks_for_is_scratch_within_the_tenants_memory(
    bench: Bench, docker_client: docker.DockerClient
) -> None:
    api = docker_client.api
    made = api.create_container("fleet-test/python:latest")
    api.commit(made["Id"], repository="fleet-test/greedy", tag="latest", changes=["VOLUME /pb_data"])
    api.remove_container(made["Id"])
    code = """
import os
print([l.split()[2] for l in open('/proc/mounts') if l.split()[1] == '/pb_data'])
open('/pb_data/x', 'w')
try:
    with open('/pb_data/y', 'wb') as f:
        for _ in range(200): f.write(bytes(1 << 20))
except OSError as e: print(e.errno)
"""
    assert bench.says(bench.worker("acme", code, image="fleet-test/greedy:latest")) == ["['tmpfs']", "28"]
    assert docker_client.volumes.list() == []


def test_a_job_runs_to_its_end_and_leaves_nothing(bench: Bench) -> None:
    sidecar = bench.sidecar("acme")
    job = JobSpec("acme", 1, 1, sidecar.uid, sidecar.volume, sidecar.config, ("version",))
    heard: list[str] = []
    done = bench.runtime.run_job(job, 60, heard.append)
    assert (done.exit_code, done.output) == (0, "0.5.17")
    assert heard == ["0.5.17"]
    failed = bench.runtime.run_job(replace(job, args=("restore", "-o", "/data/x", "/data/nope.db")), 60)
    assert failed.exit_code not in (0, None)
    assert failed.output
    assert bench.runtime.containers() == []


def test_a_job_past_its_time_is_killed_and_says_so(bench: Bench) -> None:
    sidecar = bench.sidecar("acme")
    args = ("replicate", "-config", "/etc/litestream/litestream.yml")
    job = JobSpec("acme", 1, 1, sidecar.uid, sidecar.volume, sidecar.config, args)
    assert bench.runtime.run_job(job, 1.5).exit_code is None
    assert bench.runtime.containers() == []


def test_a_job_that_a_dead_agent_left_is_replaced(bench: Bench, engine: Engine) -> None:
    sidecar = bench.sidecar("acme")
    args = ("replicate", "-config", "/etc/litestream/litestream.yml")
    job = JobSpec("acme", 1, 1, sidecar.uid, sidecar.volume, sidecar.config, args)
    code = "import pathlib, sys; from node.agent.ports import *; from node.agent.runtime.docker import DockerRuntime\n"
    code += f"from pathlib import PosixPath\nDockerRuntime({bench.runtime.fleet!r}, engine={engine.host!r})"
    agent = subprocess.Popen([sys.executable, "-c", f"{code}.run_job({job!r}, 60)"])
    _until(lambda: any(c.running for c in bench.runtime.containers()))
    agent.kill()
    agent.wait()
    assert [c.role for c in bench.runtime.containers()] == ["job"]
    assert bench.runtime.run_job(job, 1.5).exit_code is None
    assert bench.runtime.containers() == []


@pytest.fixture
def frozen(bench: Bench) -> Iterator[list[Container]]:
    """A worker and a sidecar, frozen as the guard does it."""
    found = [bench.run(bench.worker("acme", SLEEP)), bench.runtime.start(bench.runtime.create(bench.sidecar("acme")))]
    freezer = bench.runtime.freezer()
    freezer.file.write_bytes(freezer.freeze)
    _until(lambda: b"FREEZING" not in freezer.file.read_bytes())
    yield found
    freezer.file.write_bytes(freezer.thaw)


def test_everything_of_the_node_stands_still_together(bench: Bench, frozen: list[Container]) -> None:
    assert groups.is_frozen(bench.runtime.freezer())
    before = [bench.runtime.usage(c.name) for c in frozen]
    time.sleep(0.3)
    assert [u.cpu_s for u in map(bench.runtime.usage, (c.name for c in frozen)) if u] == [u.cpu_s for u in before if u]


@pytest.mark.parametrize("how", ["kill", "stop", "remove"])
def test_a_frozen_container_dies_without_a_thaw(bench: Bench, frozen: list[Container], how: str) -> None:
    for container in frozen:
        match how:
            case "kill":
                bench.runtime.kill(container.name)
            case "stop":
                bench.runtime.stop(container.name, 30)
            case _:
                bench.runtime.remove(container.name)
    assert groups.is_frozen(bench.runtime.freezer())
    assert not [c for c in bench.runtime.containers() if c.running]


def test_a_container_that_is_started_into_a_freeze_runs_nothing_and_can_be_killed(bench: Bench) -> None:
    name = bench.runtime.create(bench.worker("acme", "open('/data/ran', 'w')"))
    freezer = bench.runtime.freezer()
    freezer.file.write_bytes(freezer.freeze)
    raised: list[RuntimeFailed] = []

    def start() -> None:
        try:
            bench.runtime.start(name)
        except RuntimeFailed as e:
            raised.append(e)

    starting = threading.Thread(target=start)
    try:
        starting.start()
        for _ in range(60):  # how soon the engine comes to its start is its own affair
            starting.join(1)
            if not starting.is_alive():
                break
            bench.runtime.kill(name)
        assert not starting.is_alive()
        assert not [c for c in bench.runtime.containers() if c.running]
        assert not (bench.volumes.ensure("acme", bench.uids.of("acme"), 64 << 20).data / "ran").exists()
    finally:
        freezer.file.write_bytes(freezer.thaw)
        starting.join(60)


def test_a_death_is_heard_with_how_it_came(bench: Bench) -> None:
    heard: list[Container] = []
    watcher = threading.Thread(target=lambda: _hear(bench.runtime.deaths(), heard, "acme", "hog"), daemon=True)
    watcher.start()
    for n in range(30):  # until it watches
        bench.ended(bench.run(bench.worker(f"early{n}", "raise SystemExit(0)")).name)
        if heard:
            break
    bench.run(bench.worker("acme", "raise SystemExit(3)"))
    bench.run(bench.worker("hog", "x = bytearray(1 << 30)", memory_bytes=48 << 20))
    watcher.join(60)
    by_tenant = {c.tenant: c for c in heard}
    assert (by_tenant["acme"].exit_code, by_tenant["acme"].oom_killed, by_tenant["acme"].running) == (3, False, False)
    assert (by_tenant["hog"].exit_code, by_tenant["hog"].oom_killed) == (137, True)


def test_logs_are_lines_with_times_from_a_moment_on_and_at_most_so_many(bench: Bench) -> None:
    code = "import time\nfor n in range(5): print('line', n, flush=True)\nraise SystemExit(0)"
    name = bench.run(bench.worker("acme", code)).name
    lines = list(bench.runtime.logs(name, tail=None, since=None, follow=True))
    assert [line.split(b" ", 1)[1] for line in lines] == [b"line %d" % n for n in range(5)]
    assert all(line[:2] == b"20" and line[10:11] == b"T" for line in lines)
    bench.ended(name)
    assert len(list(bench.runtime.logs(name, tail=2, since=None, follow=False))) == 2
    assert list(bench.runtime.logs(name, tail=None, since=time.time() + 5, follow=False)) == []
    with pytest.raises(RuntimeFailed) as raised:
        bench.runtime.logs("nobody", tail=None, since=None, follow=False)
    assert raised.value.reason == "not_found"


def test_usage_is_bytes_and_seconds(bench: Bench) -> None:
    name = bench.run(bench.worker("acme", "x = bytearray(32 << 20)\n" + SLEEP)).name
    for _ in bench.runtime.logs(name, tail=None, since=None, follow=True):
        break
    used = bench.runtime.usage(name)
    assert used is not None
    assert 32 << 20 < used.memory_bytes < 128 << 20
    assert 0 < used.cpu_s < 60


def test_an_engine_that_is_away_is_an_error_of_ours_and_its_return_is_enough(bench: Bench, engine: Engine) -> None:
    container = bench.run(bench.worker("acme", SLEEP))
    heard: list[Container] = []
    watcher = threading.Thread(target=lambda: heard.extend(bench.runtime.deaths()), daemon=True)
    watcher.start()
    time.sleep(1)
    engine.kill()
    try:
        with pytest.raises(RuntimeFailed) as raised:
            bench.runtime.containers()
        assert (raised.value.reason, raised.value.retryable) == ("no_engine", True)
        watcher.join(60)
        assert not watcher.is_alive()
    finally:
        engine.start()
    bench.runtime.ensure()
    bench.runtime.remove(container.name)
    assert bench.run(bench.worker("acme", SLEEP)).running


def test_the_nodes_check_finds_this_machine_well_and_a_missing_image(
    engine: Engine, images: str, tmp_path: Path
) -> None:
    found = {f.name: f for f in check.examine(tmp_path / "not" / "yet", "fleet", engine.host)}
    assert set(found) == {"engine", "cgroup", "images", "firewall", "quota", "disk"}
    assert all(f.ok for f in found.values()), json.dumps([f.detail for f in found.values() if not f.ok])
    missing = {f.name: f for f in check.examine(tmp_path, "other", engine.host)}["images"]
    assert not missing.ok
    assert missing.fix == "images/build --prefix other"


def test_the_nodes_check_finds_no_engine_and_one_without_permission(tmp_path: Path) -> None:
    (gone, *_) = check.examine(tmp_path, "fleet", f"unix://{tmp_path}/gone.sock")
    assert (gone.name, gone.ok) == ("engine", False)
    assert "docker.io" in gone.fix
    with tempfile.TemporaryDirectory() as folder, closing(socket.socket(socket.AF_UNIX)) as listening:
        Path(folder).chmod(0o755)
        listening.bind(f"{folder}/docker.sock")
        listening.listen()
        Path(folder, "docker.sock").chmod(0o600)
        code = "import sys; from node.agent.runtime import check; from pathlib import Path\n"
        code += "print(check.examine(Path('/'), 'fleet', sys.argv[1])[0].fix)"
        done = subprocess.run(
            ["python3", "-c", code, f"unix://{folder}/docker.sock"],
            user=65534, capture_output=True, text=True, check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
    assert "group docker" in done.stdout, done.stderr


def _hear(deaths: Iterator[Container], heard: list[Container], *tenants: str) -> None:
    """Note every death until these tenants' have come."""
    for container in deaths:
        heard.append(container)
        if {c.tenant for c in heard} >= set(tenants):
            return


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come to hold")
