"""Every fault that the fleet must survive, as one table: how it is made, how it is mended, and what comes of it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.e2e.several.clients import Tenant
from tests.testbed.faulty import Mode
from tests.testbed.fleet import MARGIN_S, TTL_S, Fleet
from tests.testbed.history import Slack
from tests.testbed.machine import Machine

Comes = Literal["moves", "stays", "either"]
LONGER_S = TTL_S + MARGIN_S + 2.0


@dataclass(frozen=True)
class Scene:
    """The fleet with a fault in it: `victim` holds both tenants when it begins."""

    fleet: Fleet
    victim: Machine
    tenants: tuple[Tenant, ...]


Deed = Callable[[Scene], None]


def _nothing(_: Scene) -> None:
    """What needs no mending but the testbed's own."""


@dataclass(frozen=True)
class Fault:
    """`comes`: whether the tenants go on elsewhere, in a new epoch, while it lasts; or stay with their machine.

    It lasts for `lasts_s` where they stay, else until they have moved and acknowledge. `quick`: CI runs it. `unfenced`:
    nobody is left on the machine to freeze what runs there, so that it may go on to show what is old; it must still not
    acknowledge.
    """

    name: str
    make: Deed
    comes: Comes
    mend: Deed = _nothing
    lasts_s: float = 3.0
    quick: bool = False
    unfenced: bool = False


def _node_killed(s: Scene) -> None:
    s.victim.power_off()


def _back_with_its_disk(s: Scene) -> None:
    s.victim.power_on()
    s.victim.join()


def _engine_killed(s: Scene) -> None:
    s.victim.engine.kill()


def _engine_back(s: Scene) -> None:
    s.victim.engine.start()


def _kill(*parts: str) -> Deed:
    def deed(s: Scene) -> None:
        for part in parts:
            s.victim.signal(part, signal.SIGKILL)

    return deed


def _kill_both(s: Scene) -> None:
    """Both at once: nobody is left to start the other."""
    s.victim.signal("guard", signal.SIGSTOP)
    s.victim.signal("agent", signal.SIGKILL)
    s.victim.signal("guard", signal.SIGKILL)


def _kill_both_under_a_service_manager(s: Scene) -> None:
    """Its unit says `Restart=always` and `RestartSec=1`."""
    _kill_both(s)
    time.sleep(1.0)
    s.victim.join()


def _node_again(s: Scene) -> None:
    s.victim.join()


def _stop_parts(*parts: str) -> Deed:
    def deed(s: Scene) -> None:
        for part in parts:
            s.victim.signal(part, signal.SIGSTOP)

    return deed


def _continue_parts(*parts: str) -> Deed:
    def deed(s: Scene) -> None:
        for part in parts:
            s.victim.signal(part, signal.SIGCONT)

    return deed


def _paused(s: Scene) -> None:
    s.victim.pause()


def _resumed(s: Scene) -> None:
    s.victim.resume()
    _excuse(s)


def _excuse(s: Scene) -> None:
    now = time.monotonic()
    excuse(s, now - 0.1, now)


def excuse(s: Scene, start: float, end: float) -> None:
    """From `start` until the time of one renewal after `end` the victim may show what is old."""
    for tenant in s.tenants:
        tenant.slack.append(Slack(s.victim.name, start, end + TTL_S / 3))


def _cut(*what: str) -> Deed:
    def deed(s: Scene) -> None:
        if "store" in what:
            s.fleet.cut_from_store(s.victim)
        if "others" in what:
            s.fleet.cut_from_machines(s.victim)
            s.fleet.cut_from_controllers(s.victim)

    return deed


def _joined(s: Scene) -> None:
    s.fleet.switch.join_all()


def _store_refuses(s: Scene) -> None:
    s.fleet.store.fail(Mode.REFUSE)


def _store_back(s: Scene) -> None:
    s.fleet.store.heal()


def _store_hangs(s: Scene) -> None:
    s.fleet.minio.pause()


def _store_goes_on(s: Scene) -> None:
    s.fleet.minio.resume()


def _store_slow(s: Scene) -> None:
    s.fleet.store.fail(Mode.DELAY, delay_s=0.3)


def _half_lost(s: Scene) -> None:
    s.fleet.store.fail(Mode.LOST_REPLY, share=0.5)


def _controller_killed_during(s: Scene) -> None:
    s.victim.power_off()
    time.sleep(TTL_S + MARGIN_S + 0.5)
    s.fleet.controllers[0].kill()
    time.sleep(1.0)
    s.fleet.controllers[0].start()


def _slowed(s: Scene) -> None:
    s.victim.slow(0.1)


def _hurried(s: Scene) -> None:
    s.victim.hurry()


def _two_controllers_act(s: Scene) -> None:
    """A failover that two controllers carry out at once, neither of which cares about the other."""
    s.fleet.controllers[0].kill()
    for one in (s.fleet.controllers[0], s.fleet.add_controller(2)):
        one.start(always_acts=True)
    s.victim.power_off()


def _one_controller_acts(s: Scene) -> None:
    s.fleet.controllers.pop().remove()
    s.fleet.controllers[0].kill()
    s.fleet.controllers[0].start()
    _back_with_its_disk(s)


def _worker_killed(s: Scene) -> None:
    for tenant in s.tenants:
        s.victim.docker("kill", "-s", "KILL", s.victim.container(tenant.name), check=False)


def _drained(s: Scene) -> None:
    s.fleet.fleet("drain", s.victim.name, "--timeout", "120s")


def _uncordoned(s: Scene) -> None:
    s.fleet.fleet("uncordon", s.victim.name)


def _old_disk(s: Scene) -> None:
    """A power cut, after which the machine has its disk as it was some writes before."""
    s.victim.power_off()
    old = s.victim.copy_of_disk()
    s.victim.power_on()
    s.victim.join()
    for tenant in s.tenants:
        tenant.more(5, timeout_s=120)
    s.victim.power_off()
    s.victim.put_disk(old)


def _in_thread(deed: Deed) -> Deed:
    """What takes its time while the tenants are watched."""

    def begun(s: Scene) -> None:
        threading.Thread(target=deed, args=(s,), daemon=True).start()

    return begun


FAULTS = (
    Fault("node_killed", _node_killed, "moves", _back_with_its_disk, quick=True),
    Fault("engine_killed", _engine_killed, "stays", _engine_back),
    Fault("agent_killed", _kill("agent"), "stays", quick=True),
    Fault("guard_killed", _kill("guard"), "stays"),
    Fault("guard_and_agent_killed", _kill_both_under_a_service_manager, "either"),
    Fault("guard_and_agent_killed_for_good", _kill_both, "moves", _node_again, unfenced=True),
    Fault("agent_stopped", _stop_parts("agent"), "stays", _continue_parts("agent"), lasts_s=LONGER_S),
    Fault(
        "guard_and_agent_stopped",
        _stop_parts("guard", "agent"),
        "moves",
        _continue_parts("guard", "agent"),
        unfenced=True,
    ),
    Fault("node_paused", _paused, "moves", _resumed),
    Fault("cut_from_store", _cut("store"), "moves", _joined, quick=True),
    Fault("cut_from_others", _cut("others"), "stays", _joined, lasts_s=LONGER_S),
    Fault("cut_from_both", _cut("store", "others"), "moves", _joined),
    Fault("store_down_for_2_s", _store_refuses, "stays", _store_back, lasts_s=2.0, quick=True),
    Fault("store_down_for_longer_than_the_ttl", _store_refuses, "stays", _store_back, lasts_s=2 * LONGER_S),
    Fault("store_slow", _store_slow, "stays", _store_back, lasts_s=LONGER_S),
    Fault("store_accepts_and_never_answers", _store_hangs, "stays", _store_goes_on, lasts_s=LONGER_S),
    Fault("half_of_the_answers_lost", _half_lost, "either", _store_back, lasts_s=LONGER_S),
    Fault("controller_killed_during_a_failover", _controller_killed_during, "moves", _back_with_its_disk),
    Fault("two_controllers_act_in_a_failover", _two_controllers_act, "moves", _one_controller_acts),
    Fault("node_with_an_older_copy_of_its_disk", _old_disk, "moves", _back_with_its_disk),
    Fault("drained_under_load", _drained, "moves", _uncordoned),
    Fault("machine_slowed", _slowed, "either", _hurried, lasts_s=LONGER_S),
    Fault("worker_killed", _worker_killed, "stays"),
)
