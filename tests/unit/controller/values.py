"""Short ways to make the core's values."""

from __future__ import annotations

from fleet.core.model import Is, Machine, Sent
from node.api import TenantReport
from node.bucket.records import Capacity, Owner, Spec
from node.bucket.spec import TenantSpec

NOW = 1_000_000.0


def tenant_spec(**changes):
    return TenantSpec(**{"image": "server:1", "databases": ("app.db",), **changes})


def spec(tenant="acme", generation=1, want="up", **changes):
    inner = changes.pop("spec", None) or tenant_spec()
    return Spec(
        nonce="n",
        tenant=tenant,
        generation=generation,
        want=want,
        spec=inner,
        created_at=NOW,
        updated_at=NOW,
        **changes,
    )


def machine(name="n1", **changes):
    values = {
        "session": 1, "state": "active", "mode": "shared", "labels": {}, "reachable": True,
        "capacity": Capacity(memory_bytes=1 << 30, cpus=2.0, disk_bytes=100 << 30),
    }  # fmt: skip
    return Machine(name=name, **{**values, **changes})


def owner(tenant="acme", **changes):
    values = {"epoch": 1, "node": "n1", "session": 1, "state": "running", "data_epoch": 1, "observed_generation": 1}
    return Owner(nonce="n", tenant=tenant, **{**values, **changes})


def report(tenant="acme", state="running", epoch=1, observed=1, **changes):
    return TenantReport(tenant=tenant, state=state, epoch=epoch, observed_generation=observed, **changes)


def sent(node="n1", session=1, generation=1, want="up", at=NOW):
    return Sent(node, session, generation, want, at)


def world(machines=(), owners=(), reports=(), sent=None, emptied=None, sending=None):
    """`reports` are (node, report) pairs."""
    by_tenant: dict = {}
    for node, one in reports:
        by_tenant.setdefault(one.tenant, {})[node] = one
    return Is(
        machines={m.name: m for m in machines},
        owners={o.tenant: o for o in owners},
        reports=by_tenant,
        sent=sent or {},
        emptied=emptied or {},
        sending=sending or {},
    )
