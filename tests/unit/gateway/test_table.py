"""Routes as values and as lines of HAProxy's map."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.agent.gateway.errors import GatewayFailed
from node.agent.gateway.table import (
    Entry,
    Peer,
    check_tenant,
    held,
    is_free,
    parse,
    parse_map,
    render_map,
    routed,
    through,
    unrouted,
    with_route,
)

HASH = "ab" * 32
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
entries = st.one_of(
    st.builds(
        routed,
        st.builds(lambda ip, port: f"{ip}:{port}", st.ip_addresses(v=4), st.integers(1, 65535)),
        st.one_of(st.none(), st.just(HASH)),
    ),
    st.builds(unrouted, st.text()),
    st.builds(
        held,
        st.one_of(st.none(), st.builds(routed, st.just("10.0.0.1:1"), st.just(HASH))),
        leaving=st.booleans(),
    ),
    st.builds(
        lambda ip, port, name: through(Peer(str(ip), port, name)),
        st.ip_addresses(),
        st.integers(1, 65535),
        st.sampled_from([None, "b.fleet.example.org"]),
    ),
)


@given(st.dictionaries(names, entries))
def test_the_map_file_gives_back_what_was_written(table: dict[str, Entry]) -> None:
    assert parse_map(render_map(table).splitlines()) == table


@given(entries)
def test_a_value_can_neither_end_a_command_nor_start_another(entry: Entry) -> None:
    assert not set(entry.value()) & set(" \t\r\n;\\<'\"#")


def test_values_are_what_the_configuration_takes_apart() -> None:
    assert routed("172.18.0.5:8080", HASH).value() == f"route|172.18.0.5|8080|{HASH}|-"
    assert routed("[fd00::1]:80", None).value() == "route|fd00::1|80|-|-"
    assert unrouted("restoring").value() == "unrouted|-|0|-|restoring"
    assert held(routed("10.0.0.1:1", HASH)).value() == f"hold|-|0|{HASH}|restarting"
    assert held(None).value() == "hold|-|0|-|restarting"
    assert held(None, leaving=True).value() == "hold|-|0|-|moving"
    assert through(Peer("10.0.0.2", 7080)).value() == "via|10.0.0.2|7080|-|-"
    assert through(Peer("fd00::2", 443, "b.test")).value() == "via|fd00::2|443|-|b.test"


def test_a_reason_that_is_no_token_does_not_reach_the_map() -> None:
    assert unrouted("all\ngone; shutdown").reason == "unavailable"


@pytest.mark.parametrize("address", ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "host:1", "::1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(GatewayFailed) as refused:
        routed(address, None)
    assert not refused.value.retryable


@pytest.mark.parametrize("token", ["", "AB" * 32, "ab" * 31, "plain"])
def test_a_token_comes_as_its_hash_alone(token: str) -> None:
    with pytest.raises(GatewayFailed):
        routed("10.0.0.1:1", token)


@pytest.mark.parametrize("name", ["", "..", "A", "a b", "a;b", "a\nb", "-a", "a-", "a" * 64, "a/b", "ä"])
def test_what_is_no_tenant_never_becomes_a_command(name: str) -> None:
    with pytest.raises(GatewayFailed):
        check_tenant(name)


@pytest.mark.parametrize("value", ["", "route", "route|1|2|3", "later|-|0|-|-", "route|10.0.0.1|x|-|-"])
def test_a_value_of_another_version_is_left_out(value: str) -> None:
    assert parse(value) is None
    assert parse_map([f"acme {value}", "# a comment", "", "beta unrouted|-|0|-|x"]) == {"beta": unrouted("x")}


def test_an_address_belongs_to_the_last_who_got_it() -> None:
    before = {"acme": routed("10.0.0.1:1", None), "beta": routed("10.0.0.2:1", None), "away": unrouted("x")}
    new = routed("10.0.0.1:1", HASH)
    assert with_route(before, "gamma", new) == {"gamma": new, "acme": unrouted("moved")}
    assert with_route(before, "acme", new) == {"acme": new}


@pytest.mark.parametrize("peer", [Peer("host", 1), Peer("10.0.0.1", 0), Peer("10.0.0.1", 1, "a|b"), Peer("", 1)])
def test_what_is_no_gateway_does_not_reach_the_map(peer: Peer) -> None:
    with pytest.raises(GatewayFailed):
        through(peer)


def test_another_node_may_have_only_what_this_one_says_nothing_about() -> None:
    peer, route = through(Peer("10.0.0.2", 7080)), routed("10.0.0.1:1", None)
    assert [is_free(e) for e in (None, peer, held(route, leaving=True))] == [True] * 3
    assert [is_free(e) for e in (route, held(route), unrouted("claiming"))] == [False] * 3
