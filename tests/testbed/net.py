"""The network between machines: a bridge in a namespace of its own, one cable to each, and pairs that do not hear each
other. What passes is decided at the bridge, outside of the machines: it holds through their crashes.

Everything ends with the process that holds the namespace.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.testbed.process import wait_until

NET = "10.215.0"
TESTS = f"{NET}.1"  # the run's own network: the tests, their clients
STORE = f"{NET}.2"  # another address of it: who is cut off from the store still hears the tests
_BRIDGE = "switch"


class Switch:
    """The bridge. Addresses are those of `plug`; a cut is of a pair of them, in both directions, and silent."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cut: set[tuple[str, str]] = set()
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "add", _BRIDGE, "type", "bridge")
        self.run("ip", "link", "set", _BRIDGE, "up")
        # With this a packet between two ports passes the firewall, where it can be dropped.
        self.run("sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=1")

    def run(self, *command: str) -> None:
        """A command in the bridge's namespace. Raises AssertionError with what it said."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self._pid}/ns/net", "--", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"

    def plug(self, name: str, pid: int, *addresses: str) -> None:
        """A cable to the network namespace of a process, which gets these addresses there. It is gone when either
        namespace is. `name` is at most 12 bytes."""
        port, inner = f"p-{name}", "lan"
        ends = ["ip", "link", "add", port, "type", "veth", "peer", "name", inner, "netns", str(pid)]
        self.run(*ends)
        self.run("ip", "link", "set", port, "master", _BRIDGE, "up")
        there = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", "ip"]
        for words in (["link", "set", "lo", "up"], *(["addr", "add", f"{a}/24", "dev", inner] for a in addresses)):
            subprocess.run([*there, *words], check=True)
        subprocess.run([*there, "link", "set", inner, "up"], check=True)

    def unplug(self, name: str) -> None:
        """Pull a cable out for good; one that is gone is fine."""
        subprocess.run(
            ["nsenter", f"--net=/proc/{self._pid}/ns/net", "--", "ip", "link", "del", f"p-{name}"],
            capture_output=True,
            check=False,
        )

    def cut(self, one: str, other: str) -> None:
        """These two addresses do not hear each other, until `join`."""
        pair = (min(one, other), max(one, other))
        if pair not in self._cut:
            self._cut.add(pair)
            for a, b in (pair, pair[::-1]):
                self.run("iptables", "-w", "-A", "FORWARD", "-s", a, "-d", b, "-j", "DROP")

    def join(self, one: str, other: str) -> None:
        """These two hear each other again."""
        pair = (min(one, other), max(one, other))
        if pair in self._cut:
            self._cut.remove(pair)
            for a, b in (pair, pair[::-1]):
                self.run("iptables", "-w", "-D", "FORWARD", "-s", a, "-d", b, "-j", "DROP")

    def join_all(self) -> None:
        """Everybody hears everybody again."""
        for one, other in tuple(self._cut):
            self.join(one, other)


@contextmanager
def running_switch() -> Iterator[Switch]:
    """A switch with the run's own network plugged in."""
    holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "--", "sleep", "infinity"])
    try:
        wait_until(lambda: own_network(holder.pid), "a network of the switch's own")
        switch = Switch(holder.pid)
        switch.plug("tests", os.getpid(), TESTS, STORE)
        yield switch
        switch.unplug("tests")
    finally:
        holder.kill()
        holder.wait()


def own_network(pid: int) -> bool:
    """Whether a process has left our network namespace for one of its own."""
    try:
        return _inode(pid) != _inode(os.getpid())
    except OSError:
        return False


def _inode(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino
