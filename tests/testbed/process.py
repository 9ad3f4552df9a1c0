"""A server process of a test: started on loopback, awaited in bounded time, ended by its process id."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

READY_S = 60.0
STOP_S = 15.0
_LAST_LINES = 30
FLEET = Path(sys.executable).with_name("fleet")


class NotReady(AssertionError):
    """A server did not come up; the message shows the end of its log."""


# Below those that the kernel gives to connections: one of these could have taken a port before its server does.
_PORTS = range(15_000, 32_000)
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now, all different, none of them given out here before."""
    found: list[int] = []
    for _ in range(10_000):
        if len(found) == count:
            return found
        port = random.SystemRandom().choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    raise AssertionError(f"no {count} ports are free")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until(true: Callable[[], bool], what: str, *, timeout_s: float = READY_S, every_s: float = 0.05) -> None:
    """Ask until it holds. Raises NotReady, saying `what` did not happen, after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise NotReady(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(every_s)


def answers(port: int, path: str, *statuses: int, host: str = "127.0.0.1") -> Callable[[], bool]:
    """Whether a GET there answers one of these statuses."""

    def ask() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status in statuses
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


class Process:
    """One program with its output in a file. It dies with this test run, also when that is killed."""

    ends_with_us: Sequence[str] = ("setpriv", "--pdeathsig", "KILL", "--")

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None, cwd: Path
    ) -> None:
        self._command = [str(part) for part in command]
        self._environment = {**os.environ, **(environment or {})}
        self._cwd = cwd
        self._running: subprocess.Popen[bytes] | None = None
        self.log = log

    @property
    def pid(self) -> int:
        """The process id. Raises AssertionError when it was never started."""
        assert self._running is not None, "not started"
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._running is not None and self._running.poll() is None

    def start(self, ready: Callable[[], bool], *, timeout_s: float = READY_S) -> None:
        """Start it and wait until `ready` says so. Raises NotReady with the end of its log."""
        assert not self.alive, "already running"
        with self.log.open("ab") as out:
            self._running = subprocess.Popen(
                [*self.ends_with_us, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
            )
        try:
            wait_until(lambda: not self.alive or ready(), f"{self._command[0]} ready", timeout_s=timeout_s)
        except NotReady as e:
            self.kill()
            raise NotReady(f"{e}; its log ends:\n{self.tail()}") from None
        if not self.alive:
            raise NotReady(f"{self._command[0]} ended at once; its log ends:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it lives."""
        if self._running is not None and self._running.poll() is None:
            self._running.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self._running is not None:
            try:
                self._running.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it the hard way."""
        self.signal(signal.SIGKILL)
        if self._running is not None:
            self._running.wait(STOP_S)
