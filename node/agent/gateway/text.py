"""HAProxy's configuration as text, from a few values. Pure: the same values give the same text."""

from __future__ import annotations

from node.agent.gateway import passing
from node.agent.gateway.answers import TENANT, TYPE, document, not_ready, problem
from node.agent.gateway.config import Files, GatewayConfig

NOTHING = "a tenant is at /t/NAME/ of this gateway"


def render(config: GatewayConfig, files: Files) -> str:
    """haproxy.cfg."""
    parts = [
        _global(config, files),
        _defaults(),
        _frontend(config, files),
        _backends(),
        passing.backends(config, files),
    ]
    return "\n".join([line for part in parts for line in part] + [""])


def _global(config: GatewayConfig, files: Files) -> list[str]:
    return [
        "global",
        f"  maxconn {config.max_connections}",
        "  log stdout format raw local0 notice",
        f"  setenv GATEWAY_ROUTES {files.routes}",
        f"  setenv GATEWAY_HOLD_S {config.hold_s}",
        *([f"  setenv GATEWAY_DOOR {files.door}"] if config.peer_keys else []),
        f"  lua-load {files.lua}",
        "  hard-stop-after 1h",
        "  ssl-default-bind-options ssl-min-ver TLSv1.2",
        "",
    ]


def _defaults() -> list[str]:
    """Timeouts: short where a client must speak, an hour where a tenant thinks, a day for a tunnel."""
    bad = problem(400, "bad_request", "Malformed request", "this request cannot be passed on", retryable=False)
    broken = problem(500, "gateway_failed", "Gateway error", "the gateway failed; try again", retryable=True)
    cut = problem(
        502, "bad_answer", "No answer", "tenant {tenant} closed the connection without a whole answer", retryable=True
    )
    away = problem(
        503, "not_reachable", "Not ready", "tenant {tenant} does not answer right now; try again", retryable=True
    )
    late = problem(504, "no_answer", "No answer in time", "tenant {tenant} did not answer in an hour", retryable=False)
    return [
        "defaults",
        "  mode http",
        "  log global",
        "  option dontlog-normal",
        "  option http-no-delay",
        # After a reload the older process waits for a kept connection's next request instead of closing it under way.
        "  option idle-close-on-response",
        "  timeout http-request 10s",
        "  timeout http-keep-alive 60s",
        "  timeout client 60s",
        "  timeout client-fin 30s",
        "  timeout connect 3s",
        "  timeout queue 20s",
        "  timeout server 1h",
        "  timeout tunnel 24h",
        "  retries 4",
        "  retry-on conn-failure empty-response",
        "  http-reuse safe",
        *(f"  http-error {text}" for text in (bad, broken, cut, away, late)),
        "",
    ]


def _frontend(config: GatewayConfig, files: Files) -> list[str]:
    bind = f"  bind {config.listen}"
    if config.tls:
        bind += f" ssl crt {files.pem} alpn h2,http/1.1"
    return [
        "frontend gateway",
        bind,
        f"  log-format '{_log_format()}'",
        *passing.accepted(config),
        *_tenant_of(config),
        *_state_of(config, files),
        *_forward(config),
        *passing.passed_on(config),
        "  default_backend tenants",
        "",
    ]


def _log_format() -> str:
    """One JSON line a failed request. No header, no query: they may carry secrets."""
    return (
        '{"event":"gateway_request_failed","tenant":"' + TENANT + '","method":"%HM","status":%ST,'
        '"termination":"%ts","retries":"%rc","duration_ms":%Ta}'
    )


def _tenant_of(config: GatewayConfig) -> list[str]:
    """Which tenant is meant. A host of the domain wins, so that a tenant may have a path /t/ of its own."""
    lines = []
    by_path = "{ path_beg /t/ } !from_peer"
    if config.domain is not None:
        escaped = config.domain.replace(".", "\\.")
        lines += [
            "  http-request set-var(txn.host) req.hdr(host),host_only,lower",
            "  http-request set-var(txn.host) 'var(txn.host),regsub(\\.$,)'",
            f"  acl by_host var(txn.host) -m end .{config.domain}",
            f"  http-request set-var(txn.tenant) 'var(txn.host),regsub(\\.{escaped}$,)' if by_host !from_peer",
        ]
        by_path += " !by_host"
    text = document(404, "not_found", "Nothing here", NOTHING, retryable=False, tenant=None)
    nothing = f"status 404 content-type {TYPE} string '{text}'"
    return [
        *lines,
        "  acl by_path var(txn.by_path) -m bool",
        f"  http-request set-var(txn.by_path) bool(true) if {by_path}",
        "  http-request set-var(txn.tenant) path,field(3,/) if by_path",
        "  acl named var(txn.tenant) -m found",
        "  http-request return status 200 content-type text/plain string ok if !named { path /healthz }",
        f"  http-request return {nothing} if !named",
    ]


def _state_of(config: GatewayConfig, files: Files) -> list[str]:
    """What its route says. What is held waits, and is counted as in flight only after that: a drain does not wait
    for those who wait. Between a look into the map and the count nothing yields (see Admin.barrier)."""
    look = f"  http-request set-var(txn.route) var(txn.tenant),map_str({files.routes})"
    unknown = problem(
        404, "unknown_tenant", "No such tenant here", "no tenant {tenant} on this node; see fleet ls", retryable=False
    )
    token = problem(
        401, "unauthorized", "Token needed", "tenant {tenant} asks for its own bearer token", retryable=False
    )
    crowded = problem(503, "too_busy", "Too busy", "tenant {tenant} has too many requests open at once", retryable=True)
    down = not_ready("var(txn.route),field(5,|)")
    bare = "/t/%[var(txn.tenant)]/"
    held = "{ var(txn.route) -m beg hold| }"
    return [
        look,
        *passing.asked(config, look),
        "  acl no_slash path -m reg ^/t/[^/]+$",
        f"  http-request return {unknown} if !{{ var(txn.route) -m found }}",
        f'  http-request redirect code 308 location "{bare}?%[query]" if by_path no_slash {{ query -m found }}',
        f'  http-request redirect code 308 location "{bare}" if by_path no_slash',
        "  acl guarded var(txn.token) -m len 64",
        "  acl token_right var(txn.given),secure_memcmp(txn.token)",
        *_token_check(token),
        "  http-request track-sc1 var(txn.tenant) table open",
        f"  http-request return {crowded} if {{ sc1_conn_cur gt {config.per_tenant} }}",
        f"  http-request set-var(txn.held) bool(true) if {held}",
        f"  http-request lua.hold if {held}",
        "  http-request unset-var(txn.route) if { var(txn.held) -m bool }",
        look + " if { var(txn.held) -m bool }",
        # What a tenant that comes asks for is known with its route, not while it is held.
        *_token_check(token, "{ var(txn.held) -m bool }"),
        *passing.followed(config),
        f"  http-request return {unknown} if !{{ var(txn.route) -m found }}",
        f"  http-request return {down} if !{{ var(txn.route) -m beg route| via| }}",
        "  http-request track-sc0 var(txn.tenant) table in_flight if { var(txn.route) -m beg route| }",
    ]


def _token_check(denied: str, again: str = "") -> list[str]:
    """The token's hash against the route's, in constant time. The tenant does not get to see a token that is the
    gateway's; where access is open, Authorization is the tenant's own affair. `again`: for which requests, if not all.
    """
    return [
        *([f"  http-request unset-var(txn.token) if {again}"] if again else []),
        "  http-request set-var(txn.token) var(txn.route),field(4,|)" + (f" if {again}" if again else ""),
        f"  http-request set-var(txn.given) http_auth_bearer,sha2(256),hex,lower if guarded {again}".rstrip(),
        f"  http-request return {denied} if guarded !token_right {again}".rstrip(),
    ]


def _forward(config: GatewayConfig) -> list[str]:
    """The request as the tenant gets it: prefix gone, nothing about its way that the client made up. A token that was
    checked here is not passed on, but by way of a hold it may be another gateway that checks it."""
    return [
        "  http-request del-header authorization if guarded { var(txn.route) -m beg route| }",
        r"  http-request del-header ^(forwarded|x[-_](real[-_]ip|forwarded[-_].*))$ -m reg if !from_peer",
        "  http-request set-header X-Forwarded-For %[src] if !from_peer",
        f"  http-request set-header X-Forwarded-Proto {'https' if config.tls else 'http'} if !from_peer",
        "  http-request set-header X-Forwarded-Host %[req.hdr(host)] if { req.hdr(host) -m found } !from_peer",
        '  http-request set-header X-Forwarded-Prefix "/t/%[var(txn.tenant)]" if by_path',
        '  http-request set-path "/%[path,field(4,/,0)]" if by_path',
        "  http-request set-dst var(txn.route),field(2,|)",
        "  http-request set-dst-port var(txn.route),field(3,|)",
    ]


def _backends() -> list[str]:
    """One server for all: the request's own destination. Idle connections are kept by destination, never shared."""
    return [
        "backend tenants",
        f"  http-response del-header {passing.NOT_HERE}",
        "  http-request disable-l7-retry unless METH_GET or { method OPTIONS }",
        "  server tenant 0.0.0.0:0 pool-purge-delay 2s",
        "",
        "backend in_flight",
        "  stick-table type string len 64 size 100k expire 1h store conn_cur",
        "",
        "backend open",
        "  stick-table type string len 64 size 100k expire 1h store conn_cur",
    ]
