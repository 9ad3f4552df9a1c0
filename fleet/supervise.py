"""A small supervisor of this machine's own processes: started in order, restarted when they die, ended in reverse.

Each process holds a lock file for its whole life, inherited at its start. So a supervisor that was killed leaves them
running, and the next one knows which are there: it takes over those that keep something, and replaces the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog

from node import lock

log = structlog.get_logger()

REFUSED = 2
"""Exit code of a process that cannot be helped by starting it again: its settings are wrong, or its bucket."""

_STEP_S = 0.1
_STEADY_S = 30.0
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 15.0


class Refused(Exception):
    """A process refused to start, or never became ready: the whole is stopped."""


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Service:
    """One process. `lives_on`: what is found running is taken over, else it is replaced. `first`: the next ones start
    only once it is `ready`. `stop_s` None: it knows itself how long it may take to end. `log` None: our own output.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    ready: Callable[[], bool] = _always
    first: bool = False
    lives_on: bool = False
    reloads: bool = False
    stop_s: float | None = 10.0
    log: Path | None = None


def wait_before(failures: int) -> float:
    """Seconds until a process is started again after it ended `failures` times in a row soon after its start."""
    return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(failures - 1, 10)) if failures else 0.0


class Running:
    """A service and the process that holds its lock: a child of ours, or one that an earlier supervisor started."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self._lock = folder / f"{service.name}.service.lock"
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._stopping = False

    def alive(self) -> bool:
        """Whether it runs; notices its end. Raises Refused."""
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return True
            self._child = None
            if not self._stopping:
                self._ended(code)
        return lock.is_held(self._lock)

    def _ended(self, code: int) -> None:
        if code == REFUSED:
            raise Refused(f"the {self.service.name} refused to start; what it says is above")
        self._failures = 1 if time.monotonic() - self._started_at > _STEADY_S else self._failures + 1
        wait_s = wait_before(self._failures)
        self._not_before = time.monotonic() + wait_s
        log.warning("service.died", service=self.service.name, code=code, again_in_s=wait_s)

    def start(self) -> None:
        """Start it if it does not run and its time has come."""
        if self.alive() or time.monotonic() < self._not_before:
            return
        self._started_at = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                fd = lock.take(self._lock)
            except lock.Held:
                return
            stack.callback(os.close, fd)
            out = stack.enter_context(self.service.log.open("wb")) if self.service.log is not None else None
            self._child = subprocess.Popen(
                self.service.command,
                env=dict(self.service.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(fd,),
                start_new_session=True,
            )
        log.info("service.started", service=self.service.name, pid=self._child.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it, whoever started it."""
        pid = self._child.pid if self._child is not None else lock.holder(self._lock)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL after its time unless it knows itself how long it may take."""
        if not self._is_there():
            return
        self._stopping = True
        self.signal(signal.SIGTERM)
        began = time.monotonic()
        while self._is_there():
            if self.service.stop_s is not None and time.monotonic() - began > self.service.stop_s:
                self.signal(signal.SIGKILL)
            time.sleep(_STEP_S)
        self._stopping = False
        log.info("service.stopped", service=self.service.name, took_s=round(time.monotonic() - began, 1))

    def _is_there(self) -> bool:
        try:
            return self.alive()
        except Refused:
            return False


class Supervisor:
    """Runs services until it is told to stop. `folder` is on tmpfs: its locks end with the boot."""

    def __init__(self, folder: Path, services: Sequence[Service], *, ready_s: float = 120.0) -> None:
        self._running = [Running(service, folder) for service in services]
        self._ready_s = ready_s
        self._stop = False
        self._reload = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything in order, call `on_ready` once all are, keep it running until SIGTERM or SIGINT, then end it
        in reverse order. SIGHUP goes to those that reload. Raises Refused when one of them cannot be started.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        try:
            for running in self._running:
                self._bring_up(running)
            waiting = list(self._running)
            while not self._stop:
                self._look()
                if waiting:
                    waiting = [r for r in waiting if not (r.alive() and r.service.ready())]
                    if not waiting:
                        on_ready()
                time.sleep(_STEP_S)
        finally:
            for running in reversed(self._running):
                running.stop()

    def _bring_up(self, running: Running) -> None:
        service = running.service
        if running.alive() and not service.lives_on:
            log.info("service.replaced", service=service.name)
            running.stop()
        running.start()
        until = time.monotonic() + self._ready_s
        while service.first and not self._stop:
            if running.alive() and service.ready():
                return
            if time.monotonic() > until:
                where = f"; see {service.log}" if service.log is not None else ""
                raise Refused(f"the {service.name} is not ready after {self._ready_s:g} s{where}")
            time.sleep(_STEP_S)
            running.start()

    def _look(self) -> None:
        for running in self._running:
            if not running.alive():
                running.start()
            elif self._reload and running.service.reloads:
                running.signal(signal.SIGHUP)
        self._reload = False

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True
