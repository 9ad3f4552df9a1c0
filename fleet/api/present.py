"""From what is known to what is shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import assert_never

from fleet.api.parts import Parts
from fleet.api.view import Change, EventView, LeavingView, NodeDetail, NodeView, TenantView
from fleet.core import change
from fleet.core.drain import leaving
from fleet.core.model import MachineState, machine_state
from fleet.core.placement import ZONE, Used
from fleet.core.rooms import Rooms
from fleet.desk import Changed
from fleet.events import Event
from node.api import FENCES
from node.bucket.records import Spec


def tenant_view(parts: Parts, tenant: str, changed: Changed | None = None) -> TenantView:
    """A tenant as it is known now."""
    world = parts.world
    spec = world.specs[tenant]
    seen = world.evidence(tenant)
    shown = parts.observer.status(tenant)
    owner = world.owners.get(tenant)
    report = seen.report
    back = _rolled_back(spec, changed)
    reason, message = shown.reason, shown.message
    if back and not reason:
        generic = f"generation {spec.rolled_back} did not get healthy: the spec before it is back"
        reason, message = "rolled_back", world.rollbacks.get(tenant, generic)
    node = seen.node or (world.sent[tenant].node if tenant in world.sent else None)
    return TenantView(
        tenant=tenant,
        want=spec.want,
        generation=spec.generation,
        observed_generation=parts.observer.observed(tenant),
        state=shown.state,
        reason=reason,
        message=message,
        node=node,
        epoch=seen.epoch,
        data_epoch=max(report.data_epoch if report else 0, owner.data_epoch if owner else 0),
        url=_url(parts, node, tenant),
        spec=spec.spec,
        since=report.since if report else 0.0,
        behind=report.behind if report else False,
        lag_s=report.lag_s if report else None,
        last_confirmed=report.last_confirmed if report else None,
        progress=report.progress if report else None,
        phases=report.phases if report else (),
        warnings=report.warnings if report else (),
        restarts=report.restarts if report else 0,
        rolled_back=back,
        created_at=spec.created_at,
        updated_at=spec.updated_at,
        purge_after=spec.purge_after,
        changes=changes(changed) if changed is not None else (),
    )


def _rolled_back(spec: Spec, changed: Changed | None) -> bool:
    """Whether the last change was undone; in the answer to a change, whether it was this one."""
    if changed is None:
        return spec.rolled_back > 0
    return changed.made and spec.rolled_back == changed.spec.generation


def changes(changed: Changed) -> tuple[Change, ...]:
    """What a PUT made different. Bringing up what was down is a difference too."""
    if not changed.made:
        return ()
    old, new = changed.old, changed.spec
    found = [Change(path=p, old=a, new=b) for p, a, b in change.differences(old.spec if old else None, new.spec)]
    if old is not None and old.want != new.want:
        found.insert(0, Change(path="want", old=old.want, new=new.want))
    return tuple(found)


def etag(spec: Spec) -> str:
    """What `If-Match` names: the generation."""
    return f'"{spec.generation}"'


def _url(parts: Parts, node: str | None, tenant: str) -> str | None:
    report = parts.world.nodes.get(node) if node is not None else None
    if report is None:
        report = next((parts.world.nodes[n] for n in sorted(parts.world.nodes)), None)
    return f"{report.gateway_url.rstrip('/')}/t/{tenant}/" if report is not None else None


def node_views(parts: Parts) -> tuple[NodeView, ...]:
    """Every machine, by name."""
    world = parts.world
    used = Rooms(world.specs, world.is_).all()
    return tuple(_node_view(parts, name, used.get(name, Used())) for name in sorted(world.machines))


def _node_view(parts: Parts, name: str, used: Used) -> NodeView:
    world = parts.world
    machine, lease, report = world.machines[name], world.leases[name], world.nodes.get(name)
    state = machine_state(machine)
    reason, message = _why(parts, name, state)
    return NodeView(
        node=name,
        state=state,
        reason=reason,
        message=message,
        session=machine.session,
        url=lease.url,
        gateway_url=report.gateway_url if report else "",
        mode=machine.mode,
        capacity=machine.capacity,
        memory_used_bytes=used.memory_bytes,
        cpus_used=used.cpus,
        tenants=used.tenants,
        labels=dict(machine.labels),
        zone=machine.labels.get(ZONE, ""),
        version=lease.version,
        cordon="draining" if machine.drain else "cordoned" if machine.cordoned else "open",
        at_once=machine.drain,
        lease_age_s=parts.leases.age_s(name) if state != "gone" else None,
    )


def node_detail(parts: Parts, name: str) -> NodeDetail:
    """One machine that is known, and what a drain has still to do there."""
    world = parts.world
    used = Rooms(world.specs, world.is_).all()
    view = _node_view(parts, name, used.get(name, Used()))
    left = leaving(name, world.specs, world.is_) if view.cordon == "draining" else ()
    views = tuple(LeavingView(**asdict(one)) for one in left)
    return NodeDetail(**dict(view), leaving=views)


# Why a machine's tenants stand still, by what its agent says.
_STARTS = {
    "starting": "it begins a session as soon as the bucket answers",
    "settling": "it has begun a session and takes up or ends what an earlier one left",
    "stopped": "it was told to stop",
}


def _why(parts: Parts, name: str, state: MachineState) -> tuple[str, str]:
    """(reason, message) of a machine's state."""
    match state:
        case "ready":
            return "", ""
        case "gone":
            if parts.world.revoked.get(name) == parts.world.machines[name].session:
                return "lease_expired", "it did not renew its lease: its session was ended, its tenants went elsewhere"
            return "gone", "its session is over; start it again with `fleet node`"
        case "unreachable":
            return "unreachable", parts.world.unreachable.get(name, "its agent has not answered yet")
        case "fenced":
            reason = parts.world.nodes[name].reason or "fenced"
            why = FENCES.get(reason) or _STARTS.get(reason, "it says no more")
            return reason, f"its tenants stand still: {why}"
        case "draining":
            return "draining", "its tenants are being moved away"
        case "cordoned":
            return "cordoned", "it takes no new tenant; `fleet uncordon` opens it again"
        case _:
            assert_never(state)


def event_view(parts: Parts, event: Event) -> EventView:
    """An event as it is sent."""
    return EventView(
        id=parts.events.id_of(event),
        at=event.at,
        kind=event.kind,
        tenant=event.tenant,
        node=event.node,
        generation=event.generation,
        state=event.state,
        reason=event.reason,
        message=event.message,
    )
