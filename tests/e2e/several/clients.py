"""Clients that write to a tenant and read from it by way of every machine, and remember each call and its answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.ledger import APP, FILE
from tests.testbed.fleet import Fleet
from tests.testbed.history import Call, Slack, lost, wrong
from tests.testbed.machine import Machine
from tests.testbed.process import wait_until

ASK_S = 4.0
WRITE_EVERY_S = 0.1
READ_EVERY_S = 0.3


class Tenant:
    """One tenant under test: `calls` is all that its clients were told, in the order of the answers."""

    def __init__(self, fleet: Fleet, name: str, rpo: str) -> None:
        self.fleet = fleet
        self.name = name
        self.rpo = rpo
        self.calls: list[Call] = []
        self.slack: list[Slack] = []
        self._lock = threading.Lock()

    def up(self, *more: str) -> dict[str, Any]:
        """Bring it up."""
        words = ("--app", str(APP), "--db", FILE, "--rpo", self.rpo, "--memory", "128m", "--disk", "64m", *more)
        return dict(self.fleet.json("up", self.name, *words))

    def view(self) -> dict[str, Any]:
        """As a controller sees it. Raises OSError, AssertionError."""
        status, body = self.fleet.api("GET", f"/v1/tenants/{self.name}")
        assert status == 200, body
        return dict(body)

    @property
    def acknowledged(self) -> int:
        """How many writes were answered with yes so far."""
        with self._lock:
            return sum(c.ok and c.kind == "write" for c in self.calls)

    def more(self, count: int = 5, timeout_s: float = 90) -> None:
        """Wait until this many more writes are acknowledged."""
        want = self.acknowledged + count
        try:
            wait_until(lambda: self.acknowledged >= want, f"{count} more writes of {self.name}", timeout_s=timeout_s)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.last()}\n{self.fleet.log()}") from None

    def note(self, call: Call) -> None:
        """Remember a call."""
        with self._lock:
            self.calls.append(call)

    def rows(self) -> list[str]:
        """All that it has, from whoever answers for it now."""
        found: list[str] = []

        def ask() -> bool:
            status, body = self.fleet.tenant(self.name, "GET", "/rows")
            if status == 200:
                found[:] = body["ids"]
            return status == 200

        self.fleet.eventually(ask, f"the rows of {self.name}")
        return found

    def check(self, rows: list[str] | None = None) -> None:
        """The whole history against the rows that there are in the end."""
        rows = self.rows() if rows is None else rows
        with self._lock:
            calls = list(self.calls)
        found = wrong(calls, rows, rpo_zero=self.rpo == "0", slack=self.slack)
        count = len(found)
        assert not found, "\n".join([f"{self.name}, {len(calls)} calls, {count} wrong:", *found[:20], self.fleet.log()])

    def summary(self) -> str:
        """For the report of a run."""
        with self._lock:
            calls = list(self.calls)
        said = sum(c.ok and c.kind == "write" for c in calls)
        epochs = sorted({c.epoch for c in calls if c.ok})
        return f"{self.name}: {len(calls)} calls, {said} acknowledged, {lost(calls, self.rows())} lost, epochs {epochs}"

    def last(self) -> str:
        """The last calls by way of each machine, for a failure."""
        with self._lock:
            calls = self.calls[-30:]
        return "\n".join(
            f"{c.via} {c.kind} {c.row} ok={c.ok} {c.status} epoch={c.epoch} {c.start:.2f}-{c.end:.2f}" for c in calls
        )


def _ask(machine: Machine, tenant: str, method: str, path: str) -> tuple[int, Any]:
    """One call by way of a machine's gateway; (0, None) for no answer."""
    url = urlsplit(machine.gateway)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=ASK_S)
    try:
        connection.request(method, f"/t/{tenant}{path}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None
    finally:
        connection.close()


def _write(tenant: Tenant, machine: Machine, stop: threading.Event) -> None:
    client, number = f"w{machine.name}", 0
    while not stop.is_set():
        number += 1
        begun = time.monotonic()
        status, body = _ask(machine, tenant.name, "POST", f"/rows?id={client}.{number}")
        ok = status == 200
        epoch = int(body["epoch"]) if ok else 0
        tenant.note(Call(client, "write", begun, time.monotonic(), ok, epoch, number, via=machine.name, status=status))
        stop.wait(WRITE_EVERY_S)


def _read(tenant: Tenant, machine: Machine, stop: threading.Event) -> None:
    client = f"r{machine.name}"
    while not stop.is_set():
        begun = time.monotonic()
        status, body = _ask(machine, tenant.name, "GET", "/highest")
        ok = status == 200
        epoch, seen = (int(body["epoch"]), dict(body["seen"])) if ok else (0, {})
        done = time.monotonic()
        tenant.note(Call(client, "read", begun, done, ok, epoch, seen=seen, via=machine.name, status=status))
        stop.wait(READ_EVERY_S)


@contextlib.contextmanager
def clients(*tenants: Tenant) -> Iterator[None]:
    """A writer and a reader of each tenant by way of each machine, for as long as the block lasts."""
    stop = threading.Event()
    doers: tuple[Callable[[Tenant, Machine, threading.Event], None], ...] = (_write, _read)
    threads = [
        threading.Thread(target=do, args=(tenant, machine, stop), daemon=True)
        for tenant in tenants
        for machine in tenant.fleet.machines
        for do in doers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(ASK_S + 5)
