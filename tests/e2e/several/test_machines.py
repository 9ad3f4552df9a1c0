"""The testbed's own promises: a machine can be cut off, paused, killed and brought back, and what it holds with it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.e2e.ledger import APP, FILE
from tests.testbed.fleet import Fleet, own_folder, sweep
from tests.testbed.host import Entered, Host
from tests.testbed.net import STORE


def hears(host: Host, address: str, port: int) -> bool:
    """Whether a connection from a host to an address comes about."""
    script = f"import socket; socket.create_connection(('{address}', {port}), 1)"
    return host.run("sh", "-c", f'python3 -c "{script}" 2>/dev/null && echo yes', check=False) == "yes\n"


def test_three_machines_are_nodes_of_one_fleet(fleet: Fleet) -> None:
    began = time.monotonic()
    assert sorted(fleet.ready_nodes()) == ["a", "b", "c"]
    for machine in fleet.machines:
        view = fleet.json("up", f"on-{machine.name}", "--app", str(APP), "--db", FILE, "--node", machine.name)
        assert view["node"] == machine.name
        assert machine.docker("ps", "--format", "{{.Names}}").split()
    print(f"three tenants in {time.monotonic() - began:.1f} s")


def test_a_cut_is_of_one_pair_and_in_both_directions(fleet: Fleet) -> None:
    a, b, _ = fleet.machines
    fleet.cut_from_store(a)
    assert not hears(a, STORE, fleet.store.port)
    assert hears(b, STORE, fleet.store.port)
    assert hears(b, a.address, 7081)
    fleet.cut_from_machines(a)
    assert not hears(b, a.address, 7081)
    assert hears(fleet.controllers[0], a.address, 7081)
    fleet.switch.join_all()
    assert hears(a, STORE, fleet.store.port)


def test_a_machine_that_loses_its_power_comes_back_with_its_disk_and_nothing_running(fleet: Fleet) -> None:
    a = fleet.machine("a")
    boot = a.run("cat", "/proc/sys/kernel/random/boot_id")
    a.run("sh", "-c", f"echo kept > {a.state}/note && sync")
    assert a.processes()
    a.power_off()
    assert a.processes() == []
    a.power_on()
    assert a.run("cat", a.state / "note") == "kept\n"
    assert a.run("cat", "/proc/sys/kernel/random/boot_id") != boot
    assert a.docker("ps", "-q") == ""


def test_a_paused_machine_stands_still_as_a_whole(fleet: Fleet) -> None:
    b = fleet.machine("b")
    b.pause()
    ticks = [_ticks(pid) for pid in b.processes()]
    time.sleep(0.5)
    assert [_ticks(pid) for pid in b.processes()] == ticks
    b.resume()


def _ticks(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def test_a_slowed_machine_has_less_of_a_processor_and_all_of_it_again(fleet: Fleet) -> None:
    c = fleet.machine("c")
    burn = c.process(["python3", "-c", "while True: pass"], log="burn.log", environment={})
    burn.start(lambda: entered(burn) in c.processes())
    c.slow(0.05)
    assert used_s(burn.pid, 2.0) < 0.5
    c.hurry()
    burn.kill()


def entered(process: Entered) -> int:
    """Its process id once it is in its machine, else 0."""
    try:
        return process.pid
    except AssertionError:
        return 0


def used_s(pid: int, seconds: float) -> float:
    """The processor's time that a process takes meanwhile."""
    before = sum(map(int, _ticks(pid)))
    time.sleep(seconds)
    return (sum(map(int, _ticks(pid))) - before) / os.sysconf("SC_CLK_TCK")


def test_a_full_disk_is_full_and_has_room_again(fleet: Fleet) -> None:
    c = fleet.machine("c")
    c.fill()
    with pytest.raises(AssertionError, match="space"):
        c.run("dd", "if=/dev/zero", f"of={c.state}/more", "bs=1M", "count=1")
    c.empty_disk()
    c.run("rm", "-f", c.state / "more")


def test_what_a_killed_run_left_is_swept_away_and_nothing_else(fleet: Fleet) -> None:
    with own_folder() as mine:
        left = Path(f"{mine}-left")
        (left / "a" / "state").mkdir(parents=True)
        for folder in (left, mine):
            os.utime(folder, (0, 0))
        sweep()
        assert not left.exists()
        assert mine.exists()
    assert not mine.exists()
    assert fleet.folder.exists()
