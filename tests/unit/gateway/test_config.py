"""The configuration's text, pinned whole, and the settings that it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from node.agent.gateway.config import Files, GatewayConfig, from_settings
from node.agent.gateway.errors import GatewayMisconfigured
from node.agent.gateway.text import render
from node.settings import Settings

FILES = Files(Path("/run/fleet/gateway"))
PINNED = Path(__file__).with_name("haproxy.cfg")
TLS = GatewayConfig(
    "0.0.0.0:7443",
    "fleet.example.org",
    Path("/etc/fleet/tls.crt"),
    Path("/etc/fleet/tls.key"),
    node="a",
    peer_keys=("k" * 64, "l" * 64),
    tls_ca=Path("/etc/fleet/ca.crt"),
)


def test_the_whole_text_is_as_pinned() -> None:
    """When a change is meant: read the difference, then write the new text into the pinned file."""
    assert render(TLS, FILES) == PINNED.read_text()


def test_without_a_domain_no_host_is_looked_at() -> None:
    text = render(GatewayConfig("127.0.0.1:7080"), FILES)
    assert "by_host" not in text
    assert "req.hdr(host),host_only" not in text
    assert "\n  bind 127.0.0.1:7080\n" in text
    assert "X-Forwarded-Proto http if" in text


def test_no_log_line_can_hold_a_secret() -> None:
    """Neither a header nor the query nor the path: a log knows the tenant, the method and how it ended."""
    (line,) = [line for line in render(TLS, FILES).splitlines() if line.strip().startswith("log-format")]
    assert not re.search(r"hdr|query|%HU|%HQ|%HP|%r\b|path|url|authorization", line)


def test_every_refusal_is_a_problem_document() -> None:
    for line in render(TLS, FILES).splitlines():
        if re.match(r"  http-(request return|error) status [45]", line):
            assert "content-type application/problem+json" in line
            assert "urn:fleet:" in line
            assert ('"retryable": true' in line) == ("Retry-After" in line)


@pytest.mark.parametrize("listen", ["127.0.0.1:7080", "localhost:7080", "[::1]:7080", "127.8.0.1:7080"])
def test_loopback_needs_no_certificate(listen: str) -> None:
    assert from_settings(Settings(gateway_listen=listen)).listen == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:7080", "[::]:7080", "10.0.0.1:7080", "node.example.org:7080"])
def test_beyond_loopback_only_with_a_certificate_or_when_told(listen: str) -> None:
    with pytest.raises(GatewayMisconfigured, match="FLEET_TLS_CERT"):
        from_settings(Settings(gateway_listen=listen))
    assert not from_settings(Settings(gateway_listen=listen, insecure=True)).tls
    assert from_settings(Settings(gateway_listen=listen, tls_cert=Path("c"), tls_key=Path("k"))).tls


@pytest.mark.parametrize("domain", ["a b", "x\n  bind *:1", "-a.org", "a..b", "a" * 200, "'", "a_b"])
def test_a_domain_that_is_none_is_refused(domain: str) -> None:
    with pytest.raises(GatewayMisconfigured, match="FLEET_DOMAIN"):
        from_settings(Settings(domain=domain))


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(GatewayMisconfigured, match="FLEET_GATEWAY_LISTEN"):
        from_settings(Settings(gateway_listen="127.0.0.1:99999"))


def test_a_domain_is_taken_without_its_dots_and_capitals() -> None:
    assert from_settings(Settings(domain=".Fleet.Example.org")).domain == "fleet.example.org"
