"""Placement: who fits where, and what is said when nobody does."""

from __future__ import annotations

from fleet.core.placement import NoPlace, Placed, Used, place
from tests.unit.controller.values import machine, tenant_spec

HALF = {"limits": {"memory": "512m", "disk": "1g"}}


def named(*machines):
    return {m.name: m for m in machines}


def test_the_emptiest_machine_is_chosen():
    used = {"n1": Used(memory_bytes=512 << 20)}
    assert place(tenant_spec(), named(machine("n1"), machine("n2")), used, None) == Placed("n2")


def test_equal_machines_are_chosen_by_name():
    assert place(tenant_spec(), named(machine("b"), machine("a")), {}, None) == Placed("a")


def test_the_machine_with_the_volume_is_preferred_even_if_fuller():
    used = {"n1": Used(memory_bytes=512 << 20)}
    assert place(tenant_spec(), named(machine("n1"), machine("n2")), used, "n1") == Placed("n1")


def test_a_full_machine_is_not_preferred():
    used = {"n1": Used(memory_bytes=1 << 30)}
    assert place(tenant_spec(), named(machine("n1"), machine("n2")), used, "n1") == Placed("n2")


def test_a_spec_may_name_its_machine():
    assert place(tenant_spec(node="n2"), named(machine("n1"), machine("n2")), {}, "n1") == Placed("n2")


def test_an_unknown_machine_is_named():
    found = place(tenant_spec(node="n9"), named(machine("n1")), {}, None)
    assert isinstance(found, NoPlace)
    assert (found.reason, "n9" in found.message) == ("no_node", True)


def test_machines_that_take_nobody_are_left_out_and_say_why():
    machines = named(
        machine("a", reachable=False), machine("b", state="draining"), machine("c", fenced=True),
        machine("d", cordoned=True), machine("e", state="gone"),
    )  # fmt: skip
    found = place(tenant_spec(), machines, {}, None)
    assert isinstance(found, NoPlace)
    assert found.message == (
        "no node can take it: a does not answer, b is draining, c has lost the bucket, d is cordoned, e is gone"
    )


def test_a_fleet_without_machines_says_how_to_get_one():
    found = place(tenant_spec(), {}, {}, None)
    assert isinstance(found, NoPlace)
    assert "fleet node" in found.message


def test_no_room_says_what_would_fit():
    found = place(tenant_spec(**HALF), named(machine("n1")), {"n1": Used(memory_bytes=768 << 20)}, None)
    assert isinstance(found, NoPlace)
    assert found.reason == "no_room"
    assert "512m of memory" in found.message
    assert "n1 has 256m of memory" in found.message


def test_disk_is_asked_for_too():
    found = place(tenant_spec(limits={"disk": "200g"}), named(machine("n1")), {}, None)
    assert isinstance(found, NoPlace)


def test_cpus_are_shared_by_many_but_not_without_bound():
    spec = tenant_spec(limits={"cpus": 2})
    assert place(spec, named(machine("n1")), {"n1": Used(cpus=62)}, None) == Placed("n1")
    assert isinstance(place(spec, named(machine("n1")), {"n1": Used(cpus=63)}, None), NoPlace)


def zoned(name, zone, **changes):
    return machine(name, labels={"zone": zone}, **changes)


def test_the_emptier_zone_is_chosen_before_the_emptier_machine():
    machines = named(zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"))
    used = {"a1": Used(memory_bytes=512 << 20), "b1": Used(memory_bytes=128 << 20)}
    assert place(tenant_spec(), machines, used, None) == Placed("b1")


def test_those_that_are_kept_apart_go_to_other_zones_then_to_other_machines():
    machines = named(zoned("a1", "a"), zoned("a2", "a"), zoned("b1", "b"), zoned("b2", "b"))
    spec = tenant_spec(labels={"spread": "shop"})
    used, chosen = {}, []
    for _ in range(4):
        found = place(spec, machines, used, None)
        chosen.append(found.node)
        used[found.node] = used.get(found.node, Used()).plus(spec)
    assert {c[0] for c in chosen[:2]} == {"a", "b"}
    assert sorted(chosen) == ["a1", "a2", "b1", "b2"]


def test_who_is_kept_apart_from_nobody_is_not_counted():
    spread = tenant_spec(labels={"spread": "shop"})
    used = {"n1": Used().plus(spread)}
    assert used["n1"].minus(spread) == Used(apart={"shop": 0})
    assert Used().plus(tenant_spec()).apart == {}


def test_equally_full_machines_are_filled_by_the_number_of_tenants():
    used = {"n1": Used(memory_bytes=128 << 20, tenants=2), "n2": Used(memory_bytes=128 << 20, tenants=1)}
    assert place(tenant_spec(), named(machine("n1"), machine("n2")), used, None) == Placed("n2")


def test_a_drained_machine_says_so():
    found = place(tenant_spec(), named(machine("n1", cordoned=True, drain=1)), {}, None)
    assert found.message == "no node can take it: n1 is drained"
