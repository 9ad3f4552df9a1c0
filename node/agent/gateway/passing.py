"""Requests for a tenant of another node: asked for, passed on to that node's gateway, and taken from others. Pure.

A request is passed on once; once more by a node that held it while its tenant left, which knows where to. The gateway
that a client came to does all that depends on the client and says which tenant is meant; the tenant's own gateway
checks its token, and says `not here` when it has no route.
"""

from __future__ import annotations

import hashlib

from node.agent.gateway.answers import not_ready, problem
from node.agent.gateway.config import Files, GatewayConfig

# Between gateways of one fleet: that it is one, for which tenant, from which node; and that the tenant is not here.
KEY, FOR, VIA, NOT_HERE = "X-Fleet-Key", "X-Fleet-Tenant", "X-Fleet-Via", "X-Fleet-Not-Here"
NAME = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
STRANGERS_IN_10_S = 300


def accepted(config: GatewayConfig) -> list[str]:
    """Whether another gateway of the fleet passes this request on. It has done all that depends on the client then, and
    says which tenant is meant. From anybody else such headers mean nothing."""
    if not config.peer_keys:
        return ["  acl from_peer always_false"]
    # Hashes are compared: how long that takes says nothing about a key.
    hashes = " ".join(hashlib.sha256(key.encode()).hexdigest() for key in config.peer_keys)
    return [
        "  acl from_peer var(txn.from_peer) -m bool",
        f"  acl peer_key req.hdr({KEY}),sha2(256),hex,lower -m str {hashes}",
        "  http-request set-var(txn.from_peer) bool(true) if peer_key",
        f"  http-request set-var(txn.tenant) req.hdr({FOR}) if from_peer",
        r"  http-request del-header ^x[-_]fleet[-_](key|via|tenant)$ -m reg",
    ]


def asked(config: GatewayConfig, look: str) -> list[str]:
    """A tenant without a route is looked for once the agent was asked where it is; one that a peer believes to be here
    is not: requests are passed on once. Each client may ask about so many names that nobody has: many clients may come
    from one address, and while a machine's tenants start elsewhere all of them ask."""
    if not config.peer_keys:
        return []
    absent = not_ready("var(txn.absent)")
    crowded = problem(503, "too_busy", "Too busy", "too many names that no tenant has are asked for", retryable=True)
    unknown = f"!{{ var(txn.route) -m found }} {{ var(txn.tenant) -m reg {NAME} }}"
    # Nobody has it, or this node has been asked for so many that it does not look any more.
    stranger = f"{unknown} !{{ var(txn.absent) -m found }} or {unknown} {{ var(txn.absent) -m str too_busy }}"
    gone = _not_here()
    return [
        f"{gone} !{{ var(txn.route) -m found }}",
        f"{gone} {{ var(txn.route) -m beg via| }}",
        f"  http-request track-sc2 src table askers if {unknown}",
        f"  http-request return {crowded} if {unknown} {{ sc2_gpc0_rate gt {STRANGERS_IN_10_S} }}",
        f"  http-request set-var(txn.asked) bool(true) if {unknown}",
        "  http-request lua.ask if { var(txn.asked) -m bool }",
        look + " if { var(txn.asked) -m bool }",
        f"  http-request sc-inc-gpc0(2) if {stranger}",
        f"  http-request return {absent} if {{ var(txn.absent) -m found }}",
    ]


def _not_here() -> str:
    """What a peer hears about a tenant that is not on this node: it looks again. Passing it on could go round."""
    gone = problem(
        503, "moved", "Not here", "tenant {tenant} is not on the node where it was; try again", retryable=True
    )
    return f'  http-request return {gone} hdr {NOT_HERE} "1" if from_peer'


def followed(config: GatewayConfig) -> list[str]:
    """Those who waited while their tenant went to another node, a peer's among them."""
    if not config.peer_keys:
        return []
    absent = not_ready("var(txn.absent)")
    return [
        "  http-request set-var(txn.absent) str(moved) if { var(txn.held) -m bool } !{ var(txn.route) -m found }",
        f"{_not_here()} !{{ var(txn.route) -m found }}",
        f"  http-request return {absent} if {{ var(txn.absent) -m found }}",
        "  http-request track-sc0 var(txn.tenant) table away if { var(txn.route) -m beg via| }",
    ]


def passed_on(config: GatewayConfig) -> list[str]:
    """To another node's gateway, with what it needs to believe all this."""
    if not config.peer_keys:
        return []
    away = "{ var(txn.route) -m beg via| }"
    return [
        f"  http-request set-header {KEY} {config.peer_keys[0]} if {away}",
        f"  http-request set-header {FOR} %[var(txn.tenant)] if {away}",
        f"  http-request set-header {VIA} {config.node or 'unnamed'} if {away}",
        f"  use_backend peers if {away} {{ var(txn.route),field(5,|) -m str -- - }}",
        f"  use_backend peers_tls if {away}",
    ]


def backends(config: GatewayConfig, files: Files) -> list[str]:
    """Other nodes' gateways. One that is dead is noticed by the records; a second is enough to connect to one that is
    not, and what is established is asked whether it lives. What no peer answered makes the agent look again."""
    if not config.peer_keys:
        return []
    tls = f" ssl verify required ca-file {files.ca} sni var(txn.route),field(5,|)"
    mistrusted = not_ready("str(no_tls_ca)")
    return [
        "",
        *_backend("peers", ""),
        *(_backend("peers_tls", tls) if config.trust else ["backend peers_tls", f"  http-request return {mistrusted}"]),
        "",
        "backend away",
        "  stick-table type string len 64 size 100k expire 1m store conn_cur,http_req_cnt",
        "",
        "backend askers",
        "  stick-table type ipv6 size 100k expire 20s store gpc0_rate(10s)",
    ]


def _backend(name: str, how: str) -> list[str]:
    doubt = "  http-after-response set-var(txn.doubt) var(txn.tenant),lua.doubt"
    return [
        f"backend {name}",
        "  timeout connect 1s",
        "  retries 1",
        "  option srvtcpka",
        "  srvtcpka-idle 5s",
        "  srvtcpka-intvl 2s",
        "  srvtcpka-cnt 3",
        "  http-request disable-l7-retry unless METH_GET or { method OPTIONS }",
        "  http-response set-var(txn.answered) bool(true)",
        f"{doubt} unless {{ var(txn.answered) -m bool }}",
        f"{doubt} if {{ res.hdr({NOT_HERE}) -m found }}",
        f"  http-after-response del-header {NOT_HERE}",
        f"  server peer 0.0.0.0:0 pool-purge-delay 2s{how}",
        "",
    ]
