from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.agent.ports import RuntimeFailed
from node.agent.runtime import network

SUBNET = "172.18.0.0/16"
TINY = "10.0.0.0/29"  # five addresses beside the network's, the gateway's and the broadcast one
FIVE = {f"10.0.0.{n}" for n in range(2, 7)}


def test_a_tenant_has_the_same_address_each_time() -> None:
    assert network.address(SUBNET, "acme", ()) == network.address(SUBNET, "acme", {"172.18.0.2"}) == "172.18.107.182"


@given(tenant=st.text(), taken=st.sets(st.sampled_from(sorted(FIVE)), max_size=4))
def test_an_address_is_never_one_that_is_taken_or_the_networks_own(tenant: str, taken: set[str]) -> None:
    assert network.address(TINY, tenant, taken) in FIVE - taken


def test_many_tenants_seldom_want_the_same_address() -> None:
    wanted = [network.address(SUBNET, f"tenant-{n}", ()) for n in range(1000)]
    assert len(set(wanted)) > 980
    assert all(ipaddress.ip_address(a) in ipaddress.ip_network(SUBNET) for a in wanted)


def test_a_range_without_a_free_address_says_so_and_may_have_one_later() -> None:
    with pytest.raises(RuntimeFailed, match="no address left for acme") as failed:
        network.address(TINY, "acme", FIVE)
    assert (failed.value.reason, failed.value.retryable) == ("no_address", True)
