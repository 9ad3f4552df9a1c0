"""A session: one period of custody of one machine, and what its guard is doing about it. Pure: `now` is passed in.

A session is a promise that nothing of an earlier one runs on this machine. Times are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

State = Literal["starting", "settling", "active", "frozen", "hung", "revoked", "stopping", "gone"]
Event = Literal["begun", "settled", "renewed", "deadline", "silent", "heard", "lost", "expired", "stop", "released"]
Mode = Literal["solo", "shared"]

STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)

FROZEN_LIMIT_S = 600.0
"""A machine frozen for longer than this gives its session up."""

_LATE_S = 0.6

TABLE: Mapping[tuple[State, Event], State] = {
    # no session yet; whatever still runs here is frozen
    ("starting", "begun"): "settling",
    ("starting", "lost"): "starting",
    ("starting", "stop"): "gone",
    # the session is in the bucket, still frozen: the agent takes up or kills what an earlier session left
    ("settling", "settled"): "active",
    ("settling", "renewed"): "settling",
    ("settling", "deadline"): "settling",
    ("settling", "lost"): "revoked",
    ("settling", "stop"): "gone",
    # tenants run
    ("active", "settled"): "active",
    ("active", "renewed"): "active",
    ("active", "deadline"): "frozen",
    ("active", "silent"): "hung",
    ("active", "lost"): "revoked",
    ("active", "stop"): "stopping",
    # past the deadline: paused, and perhaps still ours
    ("frozen", "renewed"): "active",
    ("frozen", "deadline"): "frozen",
    ("frozen", "lost"): "revoked",
    ("frozen", "expired"): "revoked",
    ("frozen", "stop"): "gone",
    # no agent answers: paused, and not renewed any more, so that others may take what runs here
    ("hung", "renewed"): "hung",
    ("hung", "deadline"): "hung",
    ("hung", "heard"): "frozen",
    ("hung", "lost"): "revoked",
    ("hung", "stop"): "gone",
    # somebody else ended the session, or it gave itself up: everything is killed, then a new one
    ("revoked", "begun"): "settling",
    ("revoked", "lost"): "revoked",
    ("revoked", "stop"): "gone",
    # the agent releases every tenant in order
    ("stopping", "renewed"): "stopping",
    ("stopping", "stop"): "stopping",
    ("stopping", "deadline"): "gone",
    ("stopping", "lost"): "gone",
    ("stopping", "released"): "gone",
}


class Forbidden(Exception):
    """This event cannot happen in this state: a defect of the guard. Nothing was changed."""


def next_state(state: State, event: Event) -> State:
    """The state after an event. Raises Forbidden for a pair that the table does not know."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise Forbidden(f"a session that is {state} cannot take {event!r}") from None


@dataclass(frozen=True, slots=True)
class Session:
    """What the guard knows. `deadline` is when the tenants must stand still, `started` when the first attempt of the
    last confirmed renewal began, `etag` that of our last write (None: none). `reason` is one token: of a fence, one of
    `node.api.FENCES`.
    `frozen_at` is when they began to, None while they run; `stopped` that this machine was asked to leave.
    """

    node: str
    ttl_s: float
    margin_s: float
    mode: Mode
    state: State = "starting"
    session: int = 0
    seq: int = 0
    etag: str | None = None
    started: float = 0.0
    deadline: float = 0.0
    frozen_at: float | None = None
    reason: str = ""
    stopped: bool = False

    @property
    def enforced(self) -> bool:
        """Whether the deadline binds: not while solo, when nobody may claim what runs here."""
        return self.mode == "shared"

    def live(self, now: float) -> bool:
        """Whether what runs here may run and acknowledge at this moment."""
        return self.state in ("active", "stopping") and (not self.enforced or now < self.deadline)

    def must_freeze(self, now: float) -> bool:
        """Whether the tenants' cgroup must stand still at this moment."""
        return not self.live(now)


def _to(session: Session, event: Event, reason: str = "") -> Session:
    return replace(session, state=next_state(session.state, event), reason=reason)


def planned(session: Session, *, mode: Mode, ttl_s: float, margin_s: float) -> Session:
    """The figures of the fleet that the next session will keep to; fixed for its whole life but for the mode."""
    return replace(session, mode=mode, ttl_s=ttl_s, margin_s=margin_s)


def begun(session: Session, *, number: int, etag: str, started: float, now: float) -> Session:
    """A new session's lease is in the bucket; `started` is when its first attempt began. Still frozen."""
    after = _to(session, "begun")
    deadline = started + session.ttl_s - session.margin_s
    return replace(
        after, session=number, seq=1, etag=etag, started=started, deadline=deadline, frozen_at=now, reason="settling"
    )


def settled(session: Session, *, number: int, now: float) -> Session:
    """The agent has taken up or killed everything for session `number`; an answer for another one changes nothing."""
    if number != session.session or session.state not in ("settling", "active"):
        return session
    return tick(replace(_to(session, "settled"), frozen_at=None), now=now)


def switched(session: Session, *, mode: Mode, started: float) -> Session:
    """The next renewal, whose first attempt begins at `started`, will say `mode`. Once `shared` has landed others may
    claim, so the deadline counts from `started`, answered or not. A switch back to solo counts once it is confirmed.
    """
    if mode == session.mode or mode == "solo":
        return session
    deadline = started + session.ttl_s - session.margin_s
    return replace(session, mode=mode, started=started, deadline=deadline)


def renewed(session: Session, *, seq: int, etag: str, mode: Mode, started: float, now: float) -> Session:
    """A renewal was applied; `started` is when its first attempt began.

    An answer after the deadline moves nothing: the tenants stand still, and only a renewal that began after the
    deadline, answered in its own time, shows that nobody revoked the session meanwhile.
    """
    late = session.enforced and now >= session.deadline
    held = replace(tick(session, now=now, asked=started), seq=seq, etag=etag)
    if held.state in ("revoked", "gone"):  # given up meanwhile: what was applied changes that no more
        return held
    deadline = started + session.ttl_s - session.margin_s
    solo = mode == "solo"
    if late and not solo and (started < session.deadline or now >= deadline):
        return held
    after = replace(held, mode=mode, started=started, deadline=deadline)
    if after.state in ("settling", "hung"):
        return _to(after, "renewed", reason=after.reason)
    return replace(_to(after, "renewed", reason=after.reason if after.state == "stopping" else ""), frozen_at=None)


def lost(session: Session) -> Session:
    """The lease carries somebody else's write (412, definite): the session is over."""
    return _to(session, "lost", reason="lease_lost")


def tick(session: Session, *, now: float, looked: float | None = None, asked: float | None = None) -> Session:
    """What the passing of time changes: the deadline, and the end of a long freeze.

    `looked` is when the guard looked before, `asked` when the renewal under way began, None for none. A deadline that
    passed while nobody looked, and with no question open, is not the store's fault: this machine stood still.
    """
    if session.state in ("active", "stopping") and session.enforced and now >= session.deadline:
        open_s = looked - asked if looked is not None and asked is not None else 0.0
        paused = looked is not None and session.deadline - looked > _LATE_S and open_s <= session.ttl_s / 6
        after = _to(session, "deadline", reason="guard_paused" if paused else "store_unreachable")
        return replace(after, frozen_at=now)
    if session.state == "frozen" and session.frozen_at is not None and now - session.frozen_at >= FROZEN_LIMIT_S:
        return _to(session, "expired", reason=session.reason)
    return session


def silent(session: Session, *, now: float) -> Session:
    """No agent has said anything for too long: whoever may take over what runs here should. Alone it runs on."""
    if session.state != "active" or not session.enforced:
        return session
    return replace(_to(session, "silent", reason="agent_hung"), frozen_at=now)


def heard(session: Session, *, now: float) -> Session:
    """An agent speaks: if nobody ended the session meanwhile, the next renewal lets everything go on."""
    if session.state != "hung":
        return session
    return replace(_to(session, "heard", reason=session.reason), frozen_at=now)


def stop(session: Session) -> Session:
    """Somebody asked this machine to leave. What stands still cannot release anything: that goes at once."""
    if session.state == "gone":
        return session
    return replace(_to(session, "stop", reason="stopped"), stopped=True)


def released(session: Session) -> Session:
    """The agent released every tenant, or made no progress for too long: what is left may be killed."""
    return _to(session, "released", reason="stopped") if session.state == "stopping" else session


def may_resume(session: Session, *, same_boot: bool, now: float) -> bool:
    """Whether a guard that comes back goes on in this session without a pause: the machine has not gone down, the
    lease's ETag is known, the tenants ran, and the deadline has not passed.
    """
    return same_boot and session.etag is not None and session.live(now) and not session.stopped
