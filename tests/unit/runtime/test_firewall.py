from __future__ import annotations

from node.agent.runtime import firewall, network

BRIDGES = network.bridges("fleet")


def test_two_fleets_on_one_engine_share_no_name() -> None:
    other = network.bridges("fleet-1234abcd")
    mine = {BRIDGES.open.name, BRIDGES.closed.name, BRIDGES.open.interface, BRIDGES.closed.interface}
    theirs = {other.open.name, other.closed.name, other.open.interface, other.closed.interface}
    assert len(mine) == len(theirs) == 4
    assert not mine & theirs
    assert firewall.chain(BRIDGES) != firewall.chain(other)


def test_names_fit_what_the_kernel_allows() -> None:
    assert max(len(b.interface) for b in (BRIDGES.open, BRIDGES.closed)) <= 15
    assert len(firewall.chain(BRIDGES)) <= 28


def test_a_network_keeps_its_containers_apart_and_the_closed_one_leads_nowhere() -> None:
    assert network.options(BRIDGES.closed, "fleet", "172.18.0.0/16") == {
        "name": "fleet-closed",
        "driver": "bridge",
        "internal": True,
        "check_duplicate": True,
        "labels": {"fleet.name": "fleet"},
        "ipam": {"Driver": "default", "Config": [{"Subnet": "172.18.0.0/16"}]},
        "options": {
            "com.docker.network.bridge.name": "fl5eb2ce29c",
            "com.docker.network.bridge.enable_icc": "false",
        },
    }
    assert network.options(BRIDGES.open, "fleet", "172.18.0.0/16")["internal"] is False


def test_the_rules_drop_what_no_tenant_may_reach_and_let_replies_pass() -> None:
    assert firewall.rules(BRIDGES, ["172.18.0.0/16", "172.19.0.0/16"]) == (
        "*mangle\n"
        ":FLEET-5eb2ce29 - [0:0]\n"
        "-A FLEET-5eb2ce29 -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n"
        "-A FLEET-5eb2ce29 -m addrtype --dst-type LOCAL -j DROP\n"
        "-A FLEET-5eb2ce29 -m addrtype --dst-type BROADCAST -j DROP\n"
        "-A FLEET-5eb2ce29 -d 224.0.0.0/4 -j DROP\n"
        "-A FLEET-5eb2ce29 -d 169.254.0.0/16 -j DROP\n"
        "-A FLEET-5eb2ce29 -d 172.18.0.0/16 -j DROP\n"
        "-A FLEET-5eb2ce29 -d 172.19.0.0/16 -j DROP\n"
        "-A FLEET-5eb2ce29 -i fl5eb2ce29c -j DROP\n"
        "COMMIT\n"
    )


def test_nothing_of_ipv6_passes() -> None:
    assert firewall.rules_v6(BRIDGES) == ("*mangle\n:FLEET-5eb2ce29 - [0:0]\n-A FLEET-5eb2ce29 -j DROP\nCOMMIT\n")


def test_packets_of_both_networks_are_led_into_the_chain() -> None:
    assert firewall.hooks(BRIDGES) == (
        ("PREROUTING", "-i", "fl5eb2ce29o", "-j", "FLEET-5eb2ce29"),
        ("PREROUTING", "-i", "fl5eb2ce29c", "-j", "FLEET-5eb2ce29"),
    )
