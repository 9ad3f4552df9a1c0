"""Fifty tenants fail over, one of which cannot be restored: no other waits for it, and it does not start empty."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.several.clients import Tenant
from tests.testbed.fleet import Fleet

COUNT = 50
AT_ONCE = 6
DAMAGED = "many-7"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_one_damaged_tenant_among_fifty_that_fail_over_holds_up_none_of_them(fleet: Fleet) -> None:
    victim, *others = fleet.machines
    for machine in others:
        fleet.fleet("cordon", machine.name)
    tenants = [Tenant(fleet, f"many-{n}", "0") for n in range(COUNT)]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(brought_up, tenants))
        for machine in others:
            fleet.fleet("uncordon", machine.name)
        here = victim.workers()
        assert {t.name for t in tenants} <= set(here), here
        fail_over(fleet, tenants)
    finally:  # what stays up would be moved with every fault of the tests that follow
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda t: fleet.fleet("down", t.name, check=False), tenants))


def fail_over(fleet: Fleet, tenants: list[Tenant]) -> None:
    """Power off the machine that they are on, one of them damaged, and see the others back with their rows."""
    victim, *others = fleet.machines
    victim.power_off()
    begun = time.monotonic()
    damage(fleet, DAMAGED)
    sound = [t for t in tenants if t.name != DAMAGED]
    for tenant in sound:
        fleet.wait_state(tenant.name, "running", timeout_s=240)
    took = time.monotonic() - begun
    for tenant in sound:
        assert tenant.rows() == ["one.1"], tenant.name
    view = fleet.wait_state(DAMAGED, "damaged", "lost", timeout_s=120)
    print(f"\n{COUNT - 1} of {COUNT} back after {took:.1f} s; {DAMAGED} is {view['state']}: {view['message']}")
    assert not any(DAMAGED in machine.workers() for machine in others)


def brought_up(tenant: Tenant) -> None:
    """Up, with one row that is in the bucket."""
    fleet = tenant.fleet
    tenant.up("--no-wait")
    fleet.wait_state(tenant.name, "running", timeout_s=240)

    def written() -> bool:
        if tenant.rows():
            return True
        url = f"{fleet.machines[0].gateway}/t/{tenant.name}/rows?id=one.1"
        return fleet.request("POST", url)[0] == 200

    fleet.eventually(written, f"a row of {tenant.name}", timeout_s=120)


def damage(fleet: Fleet, tenant: str) -> None:
    """Every object of its data is there and holds something else."""
    bucket, _, prefix = fleet.env["FLEET_BUCKET"].removeprefix("s3://").partition("/")
    keys = [key for key in fleet.objects(f"data/{tenant}/") if "/rows.db/" in key]
    assert keys
    for key in keys:
        fleet.minio.client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"not what was written here")
