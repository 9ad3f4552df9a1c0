"""What a tenant may not reach: this host, the machine's metadata service, other tenants, and without egress anything.

One chain of our own in `mangle PREROUTING`: it sees what goes to the host and what goes through it, before any
address is rewritten, and no other program (the engine, ufw, firewalld) keeps its rules there, so order and restarts
do not matter. Replies to whom the host called (the gateway, the health check) pass.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from node.agent.ports import RuntimeFailed
from node.agent.runtime.network import Bridges

_WAIT_S = "10"
_TIMEOUT_S = 30.0


def chain(bridges: Bridges) -> str:
    """The chain's name: one per fleet, at most 28 bytes."""
    return f"FLEET-{bridges.open.interface[2:-1]}"


def rules(bridges: Bridges, subnets: Sequence[str]) -> str:
    """Input of `iptables-restore --noflush` that (re)makes the chain at once. `subnets` are both bridges' ranges."""
    name = chain(bridges)
    drops = [
        "-m addrtype --dst-type LOCAL",
        "-m addrtype --dst-type BROADCAST",
        "-d 224.0.0.0/4",
        "-d 169.254.0.0/16",
        *(f"-d {subnet}" for subnet in subnets),
        f"-i {bridges.closed.interface}",
    ]
    lines = [f"-A {name} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]
    lines += [f"-A {name} {match} -j DROP" for match in drops]
    return "\n".join(["*mangle", f":{name} - [0:0]", *lines, "COMMIT", ""])


def rules_v6(bridges: Bridges) -> str:
    """The same for IPv6, which tenants do not have: nothing passes."""
    name = chain(bridges)
    return "\n".join(["*mangle", f":{name} - [0:0]", f"-A {name} -j DROP", "COMMIT", ""])


def hooks(bridges: Bridges) -> tuple[tuple[str, ...], ...]:
    """The rules that lead packets of either bridge into the chain, as arguments after `-C`, `-I` or `-D`."""
    found = (bridges.open, bridges.closed)
    return tuple(("PREROUTING", "-i", bridge.interface, "-j", chain(bridges)) for bridge in found)


def ensure(bridges: Bridges, subnets: Sequence[str]) -> None:
    """Make or mend the rules; idempotent, and never a moment without them. Raises RuntimeFailed (reason firewall)."""
    for family, text in (("iptables", rules(bridges, subnets)), ("ip6tables", rules_v6(bridges))):
        _run([f"{family}-restore", "--wait", _WAIT_S, "--noflush"], text)
        for hook in hooks(bridges):
            if not _holds([family, "-w", _WAIT_S, "-t", "mangle", "-C", *hook]):
                _run([family, "-w", _WAIT_S, "-t", "mangle", "-I", *hook])


def remove(bridges: Bridges) -> None:
    """Take the rules away again; what is gone is fine."""
    for family in ("iptables", "ip6tables"):
        table = [family, "-w", _WAIT_S, "-t", "mangle"]
        for hook in hooks(bridges):
            while _holds([*table, "-D", *hook]):
                pass
        _holds([*table, "-F", chain(bridges)])
        _holds([*table, "-X", chain(bridges)])


def _holds(command: list[str]) -> bool:
    return _call(command, None).returncode == 0


def _run(command: list[str], stdin: str | None = None) -> None:
    done = _call(command, stdin)
    if done.returncode != 0:
        raise RuntimeFailed(f"{command[0]} failed: {done.stderr.strip()}", reason="firewall", retryable=True)


def _call(command: list[str], stdin: str | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise RuntimeFailed(f"cannot run {command[0]}: {e}", reason="firewall", retryable=True) from e
