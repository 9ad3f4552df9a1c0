"""Any machine's gateway reaches any tenant, and follows it through a move and through its machine's death."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.ledger import APP, FILE
from tests.testbed.fleet import Fleet
from tests.testbed.machine import Machine

pytestmark = pytest.mark.long


def ask(fleet: Fleet, machine: Machine, tenant: str, method: str, path: str) -> tuple[int, Any]:
    """One request for a tenant, at a machine's gateway."""
    return fleet.request(method, f"{machine.gateway}/t/{tenant}{path}", timeout_s=60)


def asked_until(done: threading.Event, once: Callable[[int], int]) -> Counter[int]:
    """Ask one after the other; answers by status. Bounded."""
    answers: Counter[int] = Counter()
    for number in range(100_000):
        if done.is_set():
            break
        answers[once(number)] += 1
    return answers


def test_every_gateway_reaches_a_tenant_and_a_move_refuses_nobody_where_it_was(fleet: Fleet) -> None:
    a, b, c = fleet.machines
    fleet.fleet("up", "moves", "--app", str(APP), "--db", FILE, "--node", "a")
    for number, machine in enumerate((a, b, c)):
        assert ask(fleet, machine, "moves", "POST", f"/rows?id=first.{number}")[0] == 200
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(
            asked_until, done, lambda number: ask(fleet, a, "moves", "POST", f"/rows?id=load.{number}")[0]
        )
        fleet.fleet("up", "moves", "--node", "b")
        done.set()
        answers = load.result(90)
    assert set(answers) == {200}, answers
    for machine in (a, b, c):
        fleet.eventually(lambda machine=machine: ask(fleet, machine, "moves", "GET", "/rows")[0] == 200, "an answer")  # type: ignore[misc] # a default of a lambda has no type


def test_a_tenant_of_a_machine_that_died_is_found_again_and_nobody_waits_for_the_dead(fleet: Fleet) -> None:
    a, _, c = fleet.machines
    fleet.fleet("up", "dies", "--app", str(APP), "--db", FILE)
    holder = fleet.holder("dies")
    other = next(machine for machine in (a, c) if machine is not holder)
    assert ask(fleet, other, "dies", "POST", "/rows?id=x.1")[0] == 200
    holder.power_off()
    slowest = 0.0

    def back() -> bool:
        nonlocal slowest
        began = fleet.clock()
        status = ask(fleet, other, "dies", "GET", "/rows")[0]
        slowest = max(slowest, fleet.clock() - began)
        return status == 200

    fleet.eventually(back, "an answer", timeout_s=120)
    print(f"slowest answer {slowest:.1f} s")


def test_an_unknown_name_is_404_at_every_gateway(fleet: Fleet) -> None:
    for machine in fleet.machines:
        assert ask(fleet, machine, "never-was", "GET", "/")[0] == 404
