"""Several machines on this one: nodes with engines of their own, controllers, and a store behind a proxy, on a network
whose every connection can be cut.

    with running_fleet(folder, engine, minio) as fleet:
        fleet.cut_from_store(fleet.machine("a")); ...; fleet.heal()

Whatever happens to the run, the namespaces that it is in end with it, and everything here with them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from node import lock
from node.bucket import cas, keys
from node.bucket.records import Fleet as FleetRecord
from tests.testbed.engine import Engine, NoEngine
from tests.testbed.faulty import FaultyProxy, faulty_proxy
from tests.testbed.host import Entered, Host
from tests.testbed.machine import Machine, forget
from tests.testbed.net import NET, STORE, TESTS, Switch, running_switch
from tests.testbed.operate import Done, Operated
from tests.testbed.private import inside
from tests.testbed.process import answers, wait_until
from tests.testbed.stores import StoreServer

CONTROLLER = 7070
TTL_S, MARGIN_S = 5.0, 1.5
"""The rules are those of the defaults, 15 s and 3 s; waiting for them is most of what a fault costs."""
_PLACE, _PREFIX, _FRESH_S = "/var/tmp", "fm-", 60.0
_ALWAYS_ACTS = """
import sys
from fleet import app, leader
leader.Leadership.acts = lambda self: True
sys.exit(app.main([]))
"""
NAMES = ("a", "b", "c", "d", "e", "f")


class Controller(Host):
    """A controller in a host of its own."""

    def __init__(self, name: str, address: str, folder: Path, switch: Switch, env: dict[str, str]) -> None:
        super().__init__(name, address, folder, switch)
        self.url = f"http://{address}:{CONTROLLER}"
        listen = f"{address}:{CONTROLLER}"
        self.env = {**env, "FLEET_STATE_DIR": str(folder / "state"), "FLEET_CONTROLLER_LISTEN": listen}
        self.program: Entered | None = None

    def start(self, *, always_acts: bool = False) -> None:
        """Power, if it has none, and its program. `always_acts`: whoever leads, it does not care."""
        if not self.on:
            self.power_on()
        command = [sys.executable, "-c", _ALWAYS_ACTS] if always_acts else [sys.executable, "-m", "fleet.app"]
        self.program = self.process(command, log="controller.log", environment=self.env)
        self.program.start(answers(CONTROLLER, "/healthz", 200, host=self.address))

    def kill(self) -> None:
        """SIGKILL of its program; the host stays."""
        assert self.program is not None
        self.program.kill()

    def log(self) -> str:
        """The end of what it said, for a failure."""
        return f"---- {self.name}\n{self.tail('controller.log')}"


class Fleet(Operated):
    """The whole. `minio` is the store itself, `store` the proxy in front of it that all but the tests talk to."""

    def __init__(
        self, folder: Path, switch: Switch, minio: StoreServer, store: FaultyProxy, bucket: str, endpoint: str = ""
    ) -> None:
        self.folder = folder
        self.switch = switch
        self.minio = minio
        self.store = store
        self.machines: list[Machine] = []
        self.controllers: list[Controller] = []
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLEET_", "AWS_"))}
        common = {
            **clean,
            **minio.environment(bucket, "fleet"),
            "FLEET_TOKEN": secrets.token_hex(16),
            "FLEET_INSECURE": "true",
            "FLEET_LOG_LEVEL": "debug",
        }
        self.env = dict(common)  # the tests look into the store itself
        self._settings = {**common, "FLEET_S3_ENDPOINT": endpoint or store.endpoint}
        self._data = folder / "images"

    @property
    def controller(self) -> str:  # type: ignore[override] # whichever can be asked now
        """The URL of a controller that has power."""
        for one in self.controllers:
            if one.program is not None and one.program.alive:
                return one.url
        return self.controllers[0].url

    @property
    def gateway(self) -> str:  # type: ignore[override] # whichever can be asked now
        """The gateway of a machine that has power."""
        return next((m.gateway for m in self.machines if m.on), self.machines[0].gateway)

    # ---- its life

    def found(self, ttl_s: float, margin_s: float) -> None:
        """The fleet's record, with these figures instead of the defaults."""
        fresh, ident = cas.new_nonce(), secrets.token_hex(8)
        record = FleetRecord(nonce=fresh, id=ident, mode="shared", ttl_s=ttl_s, margin_s=margin_s)
        bucket, _, prefix = self.env["FLEET_BUCKET"].removeprefix("s3://").partition("/")
        self.minio.client.put_object(Bucket=bucket, Key=f"{prefix}/{keys.FLEET}", Body=record.encode())

    def start(self, machines: int, controllers: int, **settings: str) -> None:
        """Everything at once; ready when a controller has all nodes."""
        for number in range(1, controllers + 1):
            self.add_controller(number)
        made = [self.add_machine(NAMES[number], **settings) for number in range(machines)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.start(), self.controllers))
            list(pool.map(_up, made))
        self.eventually(lambda: len(self.ready_nodes()) == machines, "every node ready")

    def add_machine(self, name: str, **settings: str) -> Machine:
        """One more machine; off."""
        home = self.folder / name
        env = {**self._settings, "FLEET_CONTROLLER": f"http://{NET}.31:{CONTROLLER}", **settings}
        data = home / "docker"
        subprocess.run(["cp", "-al", self._data, _made(data.parent) / data.name], check=True)
        for part in ("image", "containerd", "buildkit"):  # what is written to is not shared
            if (data / part).exists():
                shutil.rmtree(data / part)
                subprocess.run(["cp", "-a", self._data / part, data / part], check=True)
        machine = Machine(name, f"{NET}.{11 + NAMES.index(name)}", home, self.switch, env, data)
        self.machines.append(machine)
        return machine

    def add_controller(self, number: int) -> Controller:
        """One more controller; off."""
        address = f"{NET}.{30 + number}"
        env = {**self._settings, "FLEET_CONTROLLER": f"http://{address}:{CONTROLLER}"}
        one = Controller(f"control-{number}", address, self.folder / f"control-{number}", self.switch, env)
        self.controllers.append(one)
        return one

    def stop(self) -> None:
        """A power cut for all of it, and nothing left."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(_remove, [*self.machines, *self.controllers]))

    # ---- breaking it

    def machine(self, name: str) -> Machine:
        """A machine by its name."""
        return next(m for m in self.machines if m.name == name)

    def others(self, machine: Machine) -> list[Machine]:
        """All but this one."""
        return [m for m in self.machines if m is not machine]

    def cut_from_store(self, host: Host) -> None:
        """It does not hear the store, nor the store it."""
        self.switch.cut(host.address, STORE)

    def cut_from_controllers(self, host: Host) -> None:
        """It does not hear any controller."""
        for one in self.controllers:
            self.switch.cut(host.address, one.address)

    def cut_from_machines(self, machine: Machine) -> None:
        """It does not hear the other machines."""
        for other in self.others(machine):
            self.switch.cut(machine.address, other.address)

    def cut_from_tests(self, host: Host) -> None:
        """Clients do not reach it."""
        self.switch.cut(host.address, TESTS)

    def heal(self) -> None:
        """Everything that was broken is mended: power, cables, store, engines, guards and agents, controllers."""
        self.switch.join_all()
        self.minio.resume()
        if not self.minio.process.alive:
            self.minio.start()
        self.store.heal()
        for one in self.controllers:
            one.resume()
            if one.program is None or not one.program.alive:
                one.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(_mend, self.machines))
        self.eventually(lambda: len(self.ready_nodes()) == len(self.machines), "every node ready again", timeout_s=90)

    # ---- using it and looking at it

    def fleet(self, *words: str, check: bool = True, stdin: str | None = None, **env: str) -> Done:
        """A command as a user types it."""
        return super().fleet(*words, check=check, stdin=stdin, **{"FLEET_CONTROLLER": self.controller, **env})

    def nodes(self) -> list[dict[str, object]]:
        """Every node as the controller sees it."""
        status, body = self.api("GET", "/v1/nodes")
        assert status == 200, body
        return list(body["nodes"] if isinstance(body, dict) else body)

    def ready_nodes(self) -> list[str]:
        """Names of nodes that tenants can be placed on."""
        return [str(node["node"]) for node in self.nodes() if node["state"] == "ready"]

    def holder(self, tenant: str) -> Machine:
        """The machine that the tenant's owner record names."""
        status, body = self.api("GET", f"/v1/tenants/{tenant}")
        assert status == 200, body
        return self.machine(body["node"])

    def log(self) -> str:
        """The end of every log."""
        return "\n".join([*(one.log() for one in self.controllers), *(one.log() for one in self.machines)])


@contextlib.contextmanager
def running_fleet(
    folder: Path,
    engine: Engine,
    minio: StoreServer,
    *,
    machines: int = 3,
    controllers: int = 1,
    ttl_s: float = TTL_S,
    margin_s: float = MARGIN_S,
    direct: bool = False,
    **settings: str,
) -> Iterator[Fleet]:
    """Machines that are nodes of one fleet, with the images of `engine`, which must be built. `minio` must be this
    fleet's own. `direct`: everybody talks to it without the proxy, for measurements; it must listen everywhere. Raises
    NoEngine where there are no namespaces."""
    if not inside():
        raise NoEngine("machines need the namespaces that ./tests/run makes")
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(running_switch())
        proxy = stack.enter_context(faulty_proxy(urlsplit(minio.endpoint).port or 0, STORE))
        port = urlsplit(minio.endpoint).port
        fleet = Fleet(folder, switch, minio, proxy, minio.new_bucket(), f"http://{STORE}:{port}" if direct else "")
        stack.callback(fleet.stop)
        engine.copy_images(folder / "images")
        fleet.found(ttl_s, margin_s)
        fleet.start(machines, controllers, **settings)
        yield fleet


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for a fleet, on a real disk and with a short path: sockets and mounts live under it. What runs that were
    killed left of theirs is removed first: all else of them has ended with their namespaces."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE))
    try:
        held = lock.take(folder / "lock")
        yield folder
        os.close(held)
    finally:
        _discard(folder)


def sweep() -> None:
    """Remove folders whose run does not live any more. One that was made a moment ago may not have its lock yet."""
    for folder in Path(_PLACE).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _FRESH_S and not lock.is_held(folder / "lock"):
                _discard(folder)


def _discard(folder: Path) -> None:
    for name in NAMES:
        forget(folder / name / "state")
    subprocess.run(["rm", "-rf", folder], check=False)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(host: Host) -> None:
    with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
        host.remove()


def _up(machine: Machine) -> None:
    machine.power_on()
    machine.join()


def _mend(machine: Machine) -> None:
    machine.resume()
    if not machine.on:
        machine.power_on()
    else:
        machine.empty_disk()
        machine.hurry()
    if not machine.engine.alive:
        machine.engine.start()
    until = time.monotonic() + 10
    while machine.pid("guard") is None and machine.pid("agent") is not None and time.monotonic() < until:
        time.sleep(0.1)  # the agent starts a guard
    if machine.pid("guard") is None:
        machine.join()
    wait_until(lambda: machine.pid("agent") is not None, f"an agent on {machine.name}", timeout_s=90)
