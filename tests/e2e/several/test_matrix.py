"""The fault matrix: clients write to a tenant with an rpo of 0 and to one of 1 s by way of every machine while
something breaks; what they were told in all that time must be true."""

from __future__ import annotations

import time

import pytest

from tests.e2e.several.clients import Tenant, clients
from tests.e2e.several.faults import FAULTS, Fault, Scene, excuse
from tests.testbed.fleet import Fleet
from tests.testbed.history import longest_silence_s

SETTLES_S = 120.0
CASES = [pytest.param(f, id=f.name, marks=() if f.quick else pytest.mark.long) for f in FAULTS]


def on_one_machine(fleet: Fleet, name: str) -> Scene:
    """A tenant of each kind, both on one machine."""
    victim = fleet.machines[0]
    for other in fleet.others(victim):
        fleet.fleet("cordon", other.name)
    zero, second = Tenant(fleet, f"{name}-zero", "0"), Tenant(fleet, f"{name}-second", "1s")
    try:
        for tenant in (zero, second):
            assert tenant.up()["node"] == victim.name
    finally:
        for other in fleet.others(victim):
            fleet.fleet("uncordon", other.name)
    return Scene(fleet, victim, (zero, second))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", CASES)
def test_nothing_that_was_said_is_untrue_after(fleet: Fleet, fault: Fault) -> None:
    scene = on_one_machine(fleet, fault.name.replace("_", "-")[:40])
    with clients(*scene.tenants):
        for tenant in scene.tenants:
            tenant.more()
        epochs = {t.name: t.view()["epoch"] for t in scene.tenants}
        broken = time.monotonic()
        fault.make(scene)
        if fault.comes == "moves":
            for tenant in scene.tenants:
                moved(tenant, epochs[tenant.name])
        else:
            time.sleep(fault.lasts_s)
        mended = time.monotonic()
        fault.mend(scene)
        if fault.unfenced:
            excuse(scene, broken, time.monotonic())
        for tenant in scene.tenants:
            tenant.more(10, timeout_s=SETTLES_S)
        for tenant in scene.tenants:
            settled(tenant)
        ended = time.monotonic()
    for tenant in scene.tenants:
        if fault.comes == "stays":
            assert tenant.view()["epoch"] == epochs[tenant.name], f"{tenant.name} moved\n{fleet.log()}"
        tenant.check()
        silent = longest_silence_s(tenant.calls, broken, ended)
        print(
            f"\n{fault.name}: {tenant.summary()}; broken for {mended - broken:.1f} s, silent for {silent:.1f} s", end=""
        )
    from_the_bucket(scene.tenants[0])
    for tenant in scene.tenants:
        fleet.fleet("down", tenant.name)


def moved(tenant: Tenant, epoch: int) -> None:
    """It acknowledges again, in a later epoch."""

    def there() -> bool:
        view = tenant.view()
        return bool(view["state"] == "running" and view["epoch"] > epoch)

    tenant.fleet.eventually(there, f"{tenant.name} in an epoch after {epoch}", timeout_s=SETTLES_S)
    tenant.more(timeout_s=SETTLES_S)


def settled(tenant: Tenant) -> None:
    """It runs, its controller says so, and nowhere is a second copy of it."""
    fleet = tenant.fleet

    def alone() -> bool:
        found = [m.name for m in fleet.machines if tenant.name in m.workers()]
        return found == [tenant.view()["node"]]

    fleet.eventually(lambda: tenant.view()["state"] == "running", f"{tenant.name} running", timeout_s=SETTLES_S)
    fleet.eventually(alone, f"one copy of {tenant.name}", timeout_s=SETTLES_S)


def from_the_bucket(tenant: Tenant) -> None:
    """What was acknowledged is in the bucket, whatever the disk of its machine holds."""
    copy = f"{tenant.name}-copy"
    tenant.fleet.fleet("restore", tenant.name, "--as", copy)
    found: list[str] = []

    def rows() -> bool:
        status, body = tenant.fleet.tenant(copy, "GET", "/rows")
        if status == 200:
            found[:] = body["ids"]
        return status == 200

    tenant.fleet.eventually(rows, f"the rows of {copy}")
    tenant.check(found)
    tenant.fleet.fleet("down", copy)
