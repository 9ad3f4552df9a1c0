"""What a controller knows of its fleet."""

from __future__ import annotations

import pytest

from fleet.core.actions import Assign
from fleet.core.reconcile import reconcile
from fleet.world import World
from node.bucket import keys
from node.bucket.cas import Held
from tests.unit.controller.values import NOW, machine, sent, spec


@pytest.mark.parametrize("want", ["down", "purged"])
def test_an_up_that_got_no_answer_is_called_back_by_what_is_wanted_after_it(want):
    """The node may have got it, and begin later: nothing else was heard of the tenant yet."""
    world = World(clock=lambda: NOW)
    world.machines["n1"] = machine("n1")
    world.set_spec(keys.spec("acme"), Held(spec(), "1"))
    world.mark_sending("acme", sent())
    later = spec(generation=2, want=want, purge_after=NOW if want == "purged" else None)
    world.set_spec(keys.spec("acme"), Held(later, "2"))
    assert reconcile(world.specs, world.is_, NOW) == (Assign("acme", "n1", 1, 2, want),)
