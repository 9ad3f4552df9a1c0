"""Where requests go, by every pair of an owner record and a lease."""

from __future__ import annotations

import pytest

from node.agent.whereabouts import Absent, Elsewhere, Nobody, Whereabouts, judge
from node.bucket.records import Capacity, Lease, Owner, OwnerState

URL = "http://10.0.0.2:7080"


def owner(state: OwnerState, *, node: str = "there", session: int = 3) -> Owner:
    return Owner(
        nonce="n", tenant="acme", epoch=2, node=node, session=session, state=state, data_epoch=1, observed_generation=1
    )


def lease(*, session: int = 3, state: str = "active", url: str = URL) -> Lease:
    capacity = Capacity(memory_bytes=1, cpus=1.0, disk_bytes=1)
    return Lease(
        nonce="n", node="there", session=session, seq=1, ttl_s=15.0, margin_s=3.0, url="", gateway_url=url,
        state=state, mode="shared", capacity=capacity,  # type: ignore[arg-type] # one of its states
    )  # fmt: skip


THERE = Elsewhere("there", 3, URL)


@pytest.mark.parametrize(
    ("record", "machine", "wanted"),
    [
        (None, None, Nobody()),
        (owner("purged"), lease(), Nobody()),
        (owner("running"), lease(), THERE),
        (owner("claimed"), lease(), THERE),
        (owner("running"), lease(state="draining"), THERE),
        (owner("running"), lease(session=2), THERE),  # the lease was read before the owner record
        (owner("running"), lease(session=4), Absent("failover")),
        (owner("running"), lease(state="gone"), Absent("failover")),
        (owner("running"), None, Absent("failover")),
        (owner("running"), lease(url=""), Absent("no_gateway")),
        (owner("running"), lease(url="http://10.0.0.1:7080"), Absent("no_gateway")),  # my own
        (owner("running", node="me"), lease(), Absent("starting")),
        (owner("released"), lease(), Absent("released")),
        (owner("released", node="me"), lease(), Absent("released")),
        (owner("hibernated"), lease(), Absent("hibernated")),
        (owner("lost"), lease(), Absent("lost")),
        (owner("damaged"), lease(), Absent("damaged")),
    ],
)
def test_requests_go_to_the_node_whose_session_holds_the_tenant_and_to_nobody_else(
    record: Owner | None, machine: Lease | None, wanted: Whereabouts
) -> None:
    assert judge(record, machine, me="me", my_url="http://10.0.0.1:7080") == wanted
