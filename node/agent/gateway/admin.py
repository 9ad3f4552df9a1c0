"""HAProxy's runtime interface: commands to all of its workers over the master's socket."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.agent.gateway.errors import GatewayFailed
from node.agent.gateway.table import Entry, parse_map

ANSWER_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Processes:
    """HAProxy's processes: the worker that takes connections (None while there is none), and those before a reload
    that serve theirs to the end. `failed_reloads` counts since the master's last good one."""

    current: int | None
    old: tuple[int, ...]
    reloads: int
    failed_reloads: int

    @property
    def all(self) -> tuple[int, ...]:
        """Every worker, the current one first."""
        return (*(() if self.current is None else (self.current,)), *self.old)


def parse_processes(text: str) -> Processes:
    """The answer to `show proc`."""
    current: int | None = None
    old: list[int] = []
    reloads = failed = 0
    section = ""
    for line in text.splitlines():
        fields = line.split()
        if line.startswith("# "):
            section = line[2:].strip()
        elif len(fields) > 1 and fields[1] == "master":
            found = re.search(r"master\s+(\d+)(?:\s+\[failed:\s*(\d+)\])?", line)
            reloads, failed = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
        elif len(fields) > 1 and fields[1] == "worker" and section == "workers":
            current = int(fields[0])
        elif len(fields) > 1 and fields[1] == "worker":
            old.append(int(fields[0]))
    return Processes(current, tuple(old), reloads, failed)


def parse_in_flight(text: str, tenant: str) -> int:
    """The answer to `show table in_flight key TENANT`: requests that are under way now."""
    found = re.search(rf"\bkey={re.escape(tenant)} .*\bconn_cur=(\d+)", text)
    return int(found[1]) if found else 0


def parse_counts(text: str) -> dict[str, int]:
    """The answer to `show table NAME` of a table by tenant that stores http_req_cnt."""
    return {m[1]: int(m[2]) for m in re.finditer(r"\bkey=(\S+) .*\bhttp_req_cnt=(\d+)", text)}


def parse_sessions(text: str, address: str) -> list[str]:
    """The answer to `show sess all`: the ids of those that are with this `IP:port`."""
    found, current = [], ""
    for line in text.splitlines():
        if line.startswith("0x"):
            current = line.partition(":")[0]
        elif re.match(rf"  server=peer \(id=\d+\) addr={re.escape(address)}$", line) and current:
            found.append(current)
    return found


class Admin:
    """One connection a command; blocking. Everything raises GatewayFailed when HAProxy does not answer."""

    def __init__(self, master: Path, routes: Path, timeout_s: float = 5) -> None:
        self._master = str(master)
        self._routes = routes
        self._timeout_s = timeout_s

    def processes(self) -> Processes:
        """Which workers there are."""
        return parse_processes(self._call("show proc"))

    def put(self, changes: Mapping[str, Entry | None]) -> None:
        """Have every worker route so; None takes a tenant out. Told twice is told once."""
        workers = self.processes()
        if workers.current is None:
            raise GatewayFailed("the gateway has no worker right now", retryable=True)
        for pid in workers.all:
            for tenant, entry in changes.items():
                try:
                    self._put(pid, tenant, entry)
                except GatewayFailed:
                    if pid == workers.current or pid in self.processes().all:
                        raise

    def barrier(self) -> None:
        """After it, every request that saw the routes of before is counted as in flight.

        A worker's threads look a route up and count the request in one go. `show fd` stops all of them between two such
        goes: whoever had seen the old route has been counted when it answers.
        """
        for pid in self.processes().all:
            self._call(f"@!{pid} show fd 0")

    def in_flight(self, tenant: str) -> int:
        """Requests of the tenant under way, in all workers."""
        return sum(
            parse_in_flight(self._call(f"@!{pid} show table in_flight key {tenant}"), tenant)
            for pid in self.processes().all
        )

    def counts(self, table: str) -> dict[str, int]:
        """Requests by tenant so far, in all workers; whom nobody asked for during the table's expiry is left out."""
        found: dict[str, int] = {}
        for pid in self.processes().all:
            for tenant, count in parse_counts(self._call(f"@!{pid} show table {table}")).items():
                found[tenant] = found.get(tenant, 0) + count
        return found

    def cut(self, ip: str, port: int) -> int:
        """End what is under way with this address, in all workers; answers how many."""
        count = 0
        for pid in self.processes().all:
            for session in parse_sessions(self._call(f"@!{pid} show sess all"), f"{ip}:{port}"):
                self._call(f"@!{pid} shutdown session {session}")
                count += 1
        return count

    def routes(self, pid: int) -> dict[str, Entry]:
        """What a worker has in its map."""
        lines = self._call(f"@!{pid} show map {self._routes}").splitlines()
        return parse_map(line.partition(" ")[2] for line in lines)

    def reload(self) -> None:
        """Have the master read the configuration again. It answers before it is done."""
        self._call("reload")

    def _put(self, pid: int, tenant: str, entry: Entry | None) -> None:
        if entry is None:
            self._expect(f"@!{pid} del map {self._routes} {tenant}", "", "Key not found.")
            return
        # `add map` would make a second entry of the same name, which stays hidden behind the first: set comes first.
        value = entry.value()
        if self._expect(f"@!{pid} set map {self._routes} {tenant} {value}", "", "entry not found."):
            self._expect(f"@!{pid} add map {self._routes} {tenant} {value}", "")

    def _expect(self, command: str, *answers: str) -> str:
        answer = self._call(command).strip()
        if answer not in answers:
            raise GatewayFailed(
                f"the gateway answered {answer[:200]!r} to `{command.split(' ')[1]} map`", retryable=True
            )
        return answer

    def _call(self, command: str) -> str:
        chunks: list[bytes] = []
        size = 0
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.settimeout(self._timeout_s)
                s.connect(self._master)
                s.sendall(command.encode() + b"\n")
                s.shutdown(socket.SHUT_WR)
                while (chunk := s.recv(65536)) and size < ANSWER_LIMIT:
                    chunks.append(chunk)
                    size += len(chunk)
        except OSError as e:
            raise GatewayFailed(f"the gateway's socket {self._master} does not answer: {e}", retryable=True) from None
        return b"".join(chunks).decode("utf-8", "replace")
