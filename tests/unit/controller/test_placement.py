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
