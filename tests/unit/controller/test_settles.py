"""From any state, with nodes that do what they are told, the actions come to an end and the tenant is as wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from hypothesis import given
from hypothesis import strategies as st

from fleet.core import change
from fleet.core.actions import Assign, FinishPurge, MarkProven, Park, Purge, RollBack
from fleet.core.lifecycle import SETTLED, status
from fleet.core.model import Is, evidence, observed, session_over
from fleet.core.reconcile import reconcile
from tests.unit.controller.values import NOW, machine, owner, report, sent, spec, tenant_spec

ROUNDS = 20
BAD = "bad:1"
NODES = ("n1", "n2")


@dataclass
class Model:
    """A fleet of values. `apply` does what the executor and a correct agent would do, at once."""

    spec: object
    machines: dict
    owners: dict = field(default_factory=dict)
    reports: dict = field(default_factory=dict)
    sent: dict = field(default_factory=dict)
    emptied: dict = field(default_factory=dict)

    @property
    def is_(self):
        return Is(self.machines, self.owners, self.reports, self.sent, self.emptied)

    def apply(self, action):
        match action:
            case Assign():
                self._assign(action)
            case MarkProven():
                self.spec = change.proven(self.spec)
            case RollBack():
                self.spec = change.rolled_back(self.spec, NOW)
            case Purge(_, _, epoch):
                assert self.owners["acme"].state == "purged"
                self.emptied["acme"] = epoch
            case FinishPurge():
                self.spec = change.purge_done(self.spec)
            case Park():
                raise AssertionError("there is room")
            case _:
                assert_never(action)

    def _assign(self, action):
        self.sent["acme"] = sent(action.node, action.session, action.generation, action.want)
        mine = self.reports.setdefault("acme", {})
        held = self.owners.get("acme")
        live = held is not None and held.state in ("claimed", "running", "lost", "damaged")
        elsewhere = live and held.node != action.node and not session_over(self.machines[held.node], held.session)
        if elsewhere:
            state = "released" if action.want == "down" else "pending"
            mine[action.node] = report(state=state, epoch=0, observed=0)
            return
        epoch = 1 if held is None else held.epoch + (held.node != action.node or held.state == "purged")
        if action.want != "up":
            to = "released" if action.want == "down" else "purged"
            self._end(action, held, to, epoch, live)
            return
        bad = self.spec.spec.image == BAD
        back = bad and self.spec.previous is not None
        state = "failed" if bad and not back else "running"
        owner_state = "claimed" if state == "failed" else "running"
        self._own(action, owner_state, epoch)
        mine[action.node] = report(state=state, epoch=epoch, observed=action.generation, rolled_back=back)

    def _end(self, action, held, to, epoch, live):
        if held is not None and (live or to == "purged") and (held.node == action.node or to == "purged"):
            epoch = held.epoch
            self._own(action, to, epoch)
        elif to == "purged":
            self._own(action, to, epoch)
        shown = to if "acme" in self.owners else "released"
        self.reports["acme"][action.node] = report(state=shown, epoch=epoch, observed=action.generation)

    def _own(self, action, state, epoch):
        self.owners["acme"] = owner(
            epoch=epoch, node=action.node, session=action.session, state=state, observed_generation=action.generation
        )


@st.composite
def models(draw):
    sessions = {n: draw(st.integers(1, 3)) for n in NODES}
    machines = {n: machine(n, session=sessions[n]) for n in NODES}
    if draw(st.booleans()):
        machines["n2"] = machine("n2", session=sessions["n2"], state="gone", reachable=draw(st.booleans()))
    generation = draw(st.integers(1, 3))
    want = draw(st.sampled_from(["up", "down", "purged"]))
    image = draw(st.sampled_from(["server:1", BAD]))
    proven = draw(st.integers(0, generation))
    previous = tenant_spec(image="server:0") if proven < generation and draw(st.booleans()) else None
    one = spec(
        generation=generation, want=want, spec=tenant_spec(image=image), proven=proven, previous=previous,
        purge_after=NOW if want == "purged" else None,
    )  # fmt: skip
    model = Model(one, machines)
    states = ["claimed", "running", "released", "hibernated", "lost", "damaged", "purged"]
    if draw(st.booleans()):
        node = draw(st.sampled_from(NODES))
        model.owners["acme"] = owner(
            epoch=draw(st.integers(1, 3)), node=node, session=draw(st.integers(1, sessions[node])),
            state=draw(st.sampled_from(states)), observed_generation=draw(st.integers(0, generation)),
        )  # fmt: skip
    if draw(st.booleans()):
        node = draw(st.sampled_from(NODES))
        model.sent["acme"] = sent(
            node, draw(st.integers(1, sessions[node])), draw(st.integers(1, generation)),
            draw(st.sampled_from(["up", "down"])), at=NOW - draw(st.sampled_from([0, 60])),
        )  # fmt: skip
    return model


def settle(model):
    """Run to the end; `now` goes on by a minute a round, as resends wait for time to pass."""
    now = NOW
    for _ in range(ROUNDS):
        actions = reconcile({"acme": model.spec}, model.is_, now)
        for action in actions:
            model.apply(action)
        now += 60
        if not actions and not reconcile({"acme": model.spec}, model.is_, now):
            return
    raise AssertionError(f"it does not settle: {actions}")


@given(models())
def test_every_state_settles_as_wanted(model):
    settle(model)
    seen = evidence("acme", model.is_)
    shown = status(model.spec.want, seen, None)
    failed = model.spec.want == "up" and model.spec.spec.image == BAD
    assert shown.state in ({"failed"} if failed else SETTLED[model.spec.want])
    assert model.spec.want != "purged" or model.spec.purge_after is None
    assert observed(model.spec, seen, model.owners.get("acme")) == model.spec.generation


@given(models(), st.sampled_from(["up", "down", "purged"]))
def test_a_change_of_mind_settles_too(model, want):
    for action in reconcile({"acme": model.spec}, model.is_, NOW):
        model.apply(action)
    if model.spec.want == "purged" and want != "purged":
        return
    purge_after = NOW if want == "purged" else None
    model.spec = change.next_of(model.spec, NOW, want=want, purge_after=purge_after)
    settle(model)
    state = status(want, evidence("acme", model.is_), None).state
    assert state in SETTLED[want] | ({"failed"} if model.spec.spec.image == BAD else set())
