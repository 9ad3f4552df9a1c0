"""What to do next: a pure function of what should be, what is, and the time. It skips whoever has nothing to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleet.core.actions import Action, Assign, FinishPurge, MarkProven, Park, Purge, RollBack
from fleet.core.drain import Turns, arriving, begun, destination
from fleet.core.lifecycle import Want
from fleet.core.model import HOLDING, Evidence, Is, Move, Sent, evidence, tombstoned
from fleet.core.placement import NoPlace, Placed, place
from fleet.core.rooms import Rooms
from node.bucket.records import Spec

# An acknowledged assignment that the node does not report on after this many seconds is sent again.
RESEND_S = 5.0


def reconcile(should: Mapping[str, Spec], is_: Is, now: float, only: Iterable[str] | None = None) -> tuple[Action, ...]:
    """Everything to do now, in order for each tenant. `only` limits it to these tenants: those that nothing is being
    sent for. `now` is unix time, the same clock as `Sent.at` and `Spec.purge_after`."""
    rooms, turns = Rooms(should, is_), Turns(should, is_)
    actions: list[Action] = []
    for tenant in should if only is None else only:
        spec = should.get(tenant)
        if spec is None:
            continue
        actions.extend(_one(spec, is_, now, rooms, turns))
    return tuple(actions)


def _one(spec: Spec, is_: Is, now: float, rooms: Rooms, turns: Turns) -> tuple[Action, ...]:
    if spec.want == "purged" and spec.purge_after is None:
        return ()
    seen = evidence(spec.tenant, is_)
    match spec.want:
        case "up":
            noted = _noted(spec, seen)
            if noted and isinstance(noted[0], RollBack):
                return noted
            return noted + _up(spec, seen, is_, now, rooms, turns)
        case "down":
            return _down(spec, seen, is_, now)
        case "purged":
            return _purged(spec, seen, is_, now, rooms)


def _noted(spec: Spec, seen: Evidence) -> tuple[Action, ...]:
    """What a report says about the spec itself: it got healthy, or was given up for the one before."""
    report = seen.report
    if report is None or report.observed_generation != spec.generation or seen.hold != "live":
        return ()
    if report.rolled_back and spec.previous is not None:
        return (RollBack(spec.tenant, spec.generation),)
    if report.state == "running" and not report.rolled_back and spec.proven < spec.generation:
        return (MarkProven(spec.tenant, spec.generation),)
    return ()


def _up(spec: Spec, seen: Evidence, is_: Is, now: float, rooms: Rooms, turns: Turns) -> tuple[Action, ...]:
    if seen.hold in ("live", "away") and seen.node is not None:
        if spec.spec.node not in (None, seen.node):
            return _leave(spec, seen.node, is_, now, rooms)
        move = _drained(spec, seen, seen.node, is_, rooms, turns)
        if move is not None:
            return _assign(spec, seen.node, "down", is_, now, move)
        return _assign(spec, seen.node, "up", is_, now, arriving(spec, seen.node, is_.told(spec.tenant)))
    report = seen.report
    if report is not None and report.state == "hibernated" and report.observed_generation >= spec.generation:
        return ()
    sent = is_.told(spec.tenant)
    if sent is not None and sent.want == "up" and _alive(sent, is_) and spec.spec.node in (None, sent.node):
        return _assign(spec, sent.node, "up", is_, now, sent.move)
    return _placed(spec, "up", seen, is_, now, rooms)


def _drained(spec: Spec, seen: Evidence, node: str, is_: Is, rooms: Rooms, turns: Turns) -> Move | None:
    """The way that a tenant takes now, if its machine is drained: its turn came and there is a place for it, or it is
    under way. Else it stays up where it is."""
    machine = is_.machines.get(node)
    if machine is None or not machine.drain:
        return None
    if (move := begun(spec, node, is_.told(spec.tenant))) is not None:
        return move
    if not turns.free(node, machine.drain):
        return None
    target = destination(spec, seen, is_, rooms)
    if not isinstance(target, str):
        return None
    turns.take(node, spec.tenant)
    rooms.take(target, spec.tenant)
    return Move(node, target)


def _leave(spec: Spec, node: str, is_: Is, now: float, rooms: Rooms) -> tuple[Action, ...]:
    """Take the tenant down where it is, but only once there is a place for it."""
    found = place(spec.spec, is_.machines, rooms.without(spec.tenant), node)
    if isinstance(found, NoPlace):
        return (Park(spec.tenant, found.reason, found.message),)
    return _assign(spec, node, "down", is_, now)


def _down(spec: Spec, seen: Evidence, is_: Is, now: float) -> tuple[Action, ...]:
    if seen.hold in ("live", "away") and seen.node is not None:
        return _assign(spec, seen.node, "down", is_, now)
    sent = is_.told(spec.tenant)
    # What got no answer may not have come through: the node may still know only of an `up` before it.
    doubtful = sent is not None and (sent.want == "up" or spec.tenant in is_.sending)
    if sent is not None and doubtful and _alive(sent, is_):
        return _assign(spec, sent.node, "down", is_, now)
    if seen.report is not None and seen.report.state == "pending" and seen.node is not None:
        return _assign(spec, seen.node, "down", is_, now)  # another controller told it, and it waits to begin
    return ()


def _purged(spec: Spec, seen: Evidence, is_: Is, now: float, rooms: Rooms) -> tuple[Action, ...]:
    if tombstoned(seen):
        return _emptied(spec, seen, is_, now)
    sent = is_.told(spec.tenant)
    if seen.hold == "none" and seen.owner_state is None and seen.report is None and sent is None:
        return (FinishPurge(spec.tenant, spec.generation),)
    if seen.hold in ("live", "away") and seen.node is not None:
        return _assign(spec, seen.node, "purged", is_, now)
    if sent is not None and _alive(sent, is_):
        return _assign(spec, sent.node, "purged", is_, now)
    return _placed(spec, "purged", seen, is_, now, rooms)


def _emptied(spec: Spec, seen: Evidence, is_: Is, now: float) -> tuple[Action, ...]:
    if spec.purge_after is None or now < spec.purge_after:
        return ()
    if seen.epoch == 0 or is_.emptied.get(spec.tenant) == seen.epoch:
        return (FinishPurge(spec.tenant, spec.generation),)
    machine = is_.machines.get(seen.node or "")
    if machine is None or not machine.reachable:
        machine = min((m for m in is_.machines.values() if m.usable), key=lambda m: m.name, default=None)
    if machine is None:
        return (Park(spec.tenant, "no_node", "no node can delete its data now: start one"),)
    return (Purge(spec.tenant, machine.name, seen.epoch),)


def _placed(spec: Spec, want: Want, seen: Evidence, is_: Is, now: float, rooms: Rooms) -> tuple[Action, ...]:
    sent = is_.told(spec.tenant)
    move = sent.move if sent is not None and sent.generation == spec.generation and want == "up" else None
    move = None if move is None or seen.node != move.source else move  # it has arrived since
    found = place(spec.spec, is_.machines, rooms.without(spec.tenant), seen.node if move is None else move.target)
    match found:
        case NoPlace(reason, message):
            return (Park(spec.tenant, reason, message),)
        case Placed(node):
            rooms.take(node, spec.tenant)
            return _assign(spec, node, want, is_, now, Move(move.source, node) if move is not None else None)


def _assign(spec: Spec, node: str, want: Want, is_: Is, now: float, move: Move | None = None) -> tuple[Action, ...]:
    """Tell the node, unless it was told: the same session, generation and wish, and it reports on the tenant. What got
    no answer is told again, whatever it was."""
    machine = is_.machines.get(node)
    if machine is None or not machine.reachable:
        return ()
    assign = Assign(spec.tenant, node, machine.session, spec.generation, want, move)
    sent = is_.sent.get(spec.tenant)
    if sent is None or spec.tenant in is_.sending or _differs(sent, assign):
        return (assign,)
    report = is_.reports.get(spec.tenant, {}).get(node)
    silent = report is None or (want == "up" and report.state not in HOLDING and report.state != "pending")
    if silent and now - sent.at >= RESEND_S:
        return (assign,)
    return ()


def _differs(sent: Sent, assign: Assign) -> bool:
    return (sent.node, sent.session, sent.generation, sent.want) != (
        assign.node,
        assign.session,
        assign.generation,
        assign.want,
    )


def _alive(sent: Sent, is_: Is) -> bool:
    machine = is_.machines.get(sent.node)
    return machine is not None and machine.session == sent.session and machine.state != "gone" and machine.reachable
