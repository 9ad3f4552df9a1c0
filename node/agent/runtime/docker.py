"""Docker behind the runtime port. No type, id or error of the engine's leaves this file."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import docker
import docker.errors
import urllib3.exceptions
from docker.types import CancellableStream

from node.agent.ports import Container, Freezer, JobResult, JobSpec, RuntimeFailed, SidecarSpec, Usage, WorkerSpec
from node.agent.runtime import cgroup, containers, firewall, groups, network
from node.agent.runtime.containers import Options
from node.agent.runtime.errors import failed, translated
from node.agent.runtime.logs import lines

_CALL_TIMEOUT_S = 60
_POOL = 32
_JOB_OUTPUT_BYTES = 64 << 10
_DEATH_PATIENCE_S = 10.0


class DockerRuntime:
    """Implements node.agent.ports.Runtime. `fleet` names this node's containers, networks and cgroup: one per state
    folder. `engine` is a DOCKER_HOST; None reads the environment. Nothing is asked of the engine before it is needed;
    it has `answer_s` for each answer.
    """

    def __init__(
        self, fleet: str, *, image_prefix: str = "fleet", engine: str | None = None, answer_s: int = _CALL_TIMEOUT_S
    ) -> None:
        self.fleet = fleet
        self.sidecar_image = f"{image_prefix}/sidecar:latest"
        self._engine = engine
        self._answer_s = answer_s
        self._lock = threading.Lock()
        self._client: docker.APIClient | None = None
        self._cgroups: cgroup.Cgroups | None = None
        self._bridges = network.bridges(fleet)
        self._subnets: dict[str, str] = {}  # by bridge
        # By container, from before it is made until it is removed: the engine's list may be from before others were.
        self._given: dict[str, str] = {}

    # ---- the node

    def ensure(self) -> None:
        """Networks, firewall, cgroup parent: made or mended. Call it again after the engine was restarted."""
        with self._doing("prepare the node") as api:
            subnets = [self._network(api, bridge) for bridge in (self._bridges.open, self._bridges.closed)]
        firewall.ensure(self._bridges, subnets)
        groups.make(self.cgroups(), self.freezer())

    def teardown(self) -> None:
        """Everything that `ensure` made and every container of this fleet, gone: for uninstalling and for tests."""
        for found in self.containers():
            self.remove(found.name)
        with self._doing("remove the networks") as api:
            for bridge in (self._bridges.open, self._bridges.closed):
                for name in (bridge.name, network.probe(bridge, self.fleet)["name"]):
                    with contextlib.suppress(docker.errors.NotFound):
                        api.remove_network(name)
        firewall.remove(self._bridges)
        groups.remove(self.cgroups(), self.freezer())

    def cgroups(self) -> cgroup.Cgroups:
        """The engine's cgroup driver and version, asked once."""
        if self._cgroups is None:
            info = self.info()
            driver: cgroup.Driver = "systemd" if info.get("CgroupDriver") == "systemd" else "cgroupfs"
            self._cgroups = cgroup.Cgroups(driver, int(info.get("CgroupVersion") or 1))
        return self._cgroups

    def freezer(self) -> Freezer:
        """Where the guard freezes everything that runs here."""
        return cgroup.freezer(self.cgroups(), self.fleet)

    def info(self) -> Mapping[str, Any]:
        """What the engine says of itself."""
        with self._doing("ask the engine") as api:
            return cast("Mapping[str, Any]", api.info())

    # ---- one container

    def create(self, spec: WorkerSpec | SidecarSpec) -> str:
        """Create a container, replacing a stopped one of the same tenant and role; answers its name.

        Raises RuntimeFailed: no_image, no_volume, running (one of that name runs: stop it first), ...
        """
        return self._create(spec, replace_running=False)

    def start(self, name: str) -> Container:
        """Start a created container; one that runs already is fine. The answer has its address."""
        with self._doing(f"start {name}") as api:
            api.start(name)
            return self._inspect(api, name)

    def allow(self, container: Container, cpus: float) -> None:
        """Let a running container compute with so many processors from now on; one that is gone is fine. The kernel is
        told, not the engine, which goes on naming what the container was made with: that takes it a fiftieth of a
        second of computing."""
        groups.allow(*cgroup.quota(self.cgroups(), self.fleet, container.instance, cpus))

    def stop(self, name: str, timeout_s: float) -> None:
        """SIGTERM, wait, SIGKILL; one that is gone is fine."""
        if groups.is_frozen(self.freezer()):
            self.kill(name)  # it could not run its handler, and the engine would wait for it in vain
            return
        with self._doing(f"stop {name}") as api, contextlib.suppress(docker.errors.NotFound):
            api.stop(name, timeout=math.ceil(timeout_s))

    def kill(self, name: str) -> None:
        """SIGKILL at once, also when it is frozen; one that is gone is fine."""
        if groups.is_frozen(self.freezer()):
            self._kill_frozen(name)
            return
        with self._doing(f"kill {name}") as api:
            try:
                api.kill(name)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as e:
                if e.status_code != 409 and "is not running" not in str(e.explanation):
                    raise

    def remove(self, name: str) -> None:
        """Remove a container, killing it if need be; one that is gone is fine."""
        self._remove(name)
        with self._lock:
            self._given.pop(name, None)

    def _remove(self, name: str) -> None:
        if groups.is_frozen(self.freezer()):
            self._kill_frozen(name)
        with self._doing(f"remove {name}") as api:
            for _ in range(100):
                try:
                    api.remove_container(name, force=True, v=True)
                except docker.errors.NotFound:
                    return
                except docker.errors.APIError as e:
                    if e.status_code != 409:  # 409: somebody else is removing it
                        raise
                    time.sleep(0.05)
                else:
                    return

    def run_job(self, spec: JobSpec, timeout_s: float, progress: Callable[[str], None] | None = None) -> JobResult:
        """Run a job to its end and remove it. `progress` gets each line; the result has the last 64 KiB."""
        name = self._create(spec, replace_running=True)
        overdue = threading.Event()

        def give_up() -> None:
            overdue.set()
            with contextlib.suppress(RuntimeFailed):
                self.kill(name)

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        output: deque[str] = deque()
        kept = 0
        try:
            self.start(name)
            timer.start()
            for line in self._lines(name, timestamps=False, follow=True):
                text = line.decode(errors="replace")
                if progress is not None:
                    progress(text)
                output.append(text)
                kept += len(text) + 1
                while kept > _JOB_OUTPUT_BYTES and len(output) > 1:
                    kept -= len(output.popleft()) + 1
            with self._doing(f"wait for {name}") as api:
                code = int(api.wait(name)["StatusCode"])
        finally:
            timer.cancel()
            self.remove(name)
        return JobResult(None if overdue.is_set() else code, "\n".join(output))

    # ---- looking

    def containers(self) -> list[Container]:
        """All containers of this fleet on this node, the oldest first; those that do not run with how they ended."""
        with self._doing("list the containers") as api:
            found = api.containers(all=True, filters={"label": [f"{containers.FLEET}={self.fleet}", containers.ROLE]})
            return [c for c in (self._listed(api, entry) for entry in reversed(found)) if c is not None]

    def logs(self, name: str, *, tail: int | None, since: float | None, follow: bool) -> Iterator[bytes]:
        """Lines with RFC 3339 timestamps; ends with the container when following."""
        return self._lines(name, tail=tail, since=since, follow=follow)

    def deaths(self) -> Iterator[Container]:
        """Blocks and yields each of our containers as it ends. Ends when the engine goes away: call again, and look
        at `containers` then, for what ended in between."""
        filters = {"type": "container", "event": "die", "label": f"{containers.FLEET}={self.fleet}"}
        with self._doing("watch the containers") as api:
            api.ping()
        with self._stream(), contextlib.closing(api.events(decode=True, filters=filters)) as events:
            for event in events:
                attributes: Mapping[str, str] = event["Actor"]["Attributes"]
                name = attributes.get("name", "")
                died = containers.container(name, attributes, running=False, instance=event["Actor"]["ID"])
                if died is not None:
                    yield self._how(died, int(attributes.get("exitCode", "-1")))

    def usage(self, name: str) -> Usage | None:
        """Memory without the page cache that can be dropped at once, and CPU seconds; None when it does not run."""
        with self._doing(f"measure {name}") as api:
            try:
                stats = api.stats(name, stream=False, one_shot=True)
            except docker.errors.NotFound:
                return None
        memory = stats.get("memory_stats", {})
        if "usage" not in memory:
            return None
        detail = memory.get("stats", {})
        cache = int(detail.get("total_inactive_file", detail.get("inactive_file", 0)))
        return Usage(max(0, int(memory["usage"]) - cache), stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9)

    def image_exists(self, image: str) -> bool:
        """Whether the engine has this image."""
        with self._doing(f"look for the image {image}") as api:
            try:
                _image(api, image)
            except docker.errors.NotFound:
                return False
            return True

    # ---- inside

    def _create(self, spec: WorkerSpec | SidecarSpec | JobSpec, *, replace_running: bool) -> str:
        name = containers.name_of(self.fleet, spec)
        with self._doing(f"create {name}") as api:
            options = self._options(api, spec)
            for _ in range(3):
                try:
                    api.create_container_from_config(options, name)  # type: ignore[no-untyped-call] # not in the stubs
                except docker.errors.APIError as e:
                    if e.status_code != 409:
                        raise
                else:
                    return name
                if not replace_running and _alive(self._entry(api, name)):
                    raise RuntimeFailed(
                        f"create {name}: it runs already; stop it first", reason="running", retryable=False
                    )
                self._remove(name)
        raise RuntimeFailed(f"create {name}: the name stays taken", reason="conflict", retryable=True)

    def _options(self, api: docker.APIClient, spec: WorkerSpec | SidecarSpec | JobSpec) -> Options:
        parent = cgroup.parent(self.cgroups(), self.fleet)
        b = self._bridges
        place = containers.Place(self.fleet, parent, self.sidecar_image, b.open.name, b.closed.name)
        match spec:
            case WorkerSpec():
                config = _image(api, spec.image).get("Config") or {}
                options = containers.worker(place, spec, config.get("Volumes") or ())
                bridge = b.open if spec.egress else b.closed
                return options | containers.at(bridge.name, self._address(api, bridge, spec))
            case SidecarSpec():
                return containers.sidecar(place, spec)
            case JobSpec():
                return containers.job(place, spec)

    def _address(self, api: docker.APIClient, bridge: network.Bridge, spec: WorkerSpec) -> str:
        """The worker's address, which no other one has or is about to have."""
        subnet = self._subnets.get(bridge.name) or self._network(api, bridge)
        everybody = api.containers(all=True, filters={"label": f"{containers.FLEET}={self.fleet}"})
        others = (c for c in everybody if c["Labels"].get(containers.TENANT) != spec.tenant)
        taken = {_address(c["NetworkSettings"]["Networks"]) for c in others}
        name = containers.name_of(self.fleet, spec)
        with self._lock:
            taken.update(address for other, address in self._given.items() if other != name)
            self._given[name] = network.address(subnet, spec.tenant, taken)
            return self._given[name]

    def _network(self, api: docker.APIClient, bridge: network.Bridge) -> str:
        """The network's range; it is made if it is not there."""
        try:
            found = api.inspect_network(bridge.name)
        except docker.errors.NotFound:
            probe = network.probe(bridge, self.fleet)
            _make_network(api, probe)
            subnet = _subnet(api.inspect_network(probe["name"]))
            api.remove_network(probe["name"])
            _make_network(api, network.options(bridge, self.fleet, subnet))
            found = api.inspect_network(bridge.name)
        self._subnets[bridge.name] = _subnet(found)
        return self._subnets[bridge.name]

    def _inspect(self, api: docker.APIClient, name: str) -> Container:
        found = api.inspect_container(name)
        state, networks = found["State"], found["NetworkSettings"]["Networks"]
        made = containers.container(
            name,
            found["Config"]["Labels"],
            running=state["Running"],
            address=_address(networks),
            instance=found["Id"],
        )
        if made is None:
            raise RuntimeFailed(f"{name} is not one of this fleet's containers", reason="foreign", retryable=False)
        return made if made.running else self._how(made, state["ExitCode"], oom_killed=state["OOMKilled"])

    def _listed(self, api: docker.APIClient, entry: Mapping[str, Any]) -> Container | None:
        name = entry["Names"][0].lstrip("/")
        if _alive(entry):
            address = _address(entry["NetworkSettings"]["Networks"])
            return containers.container(name, entry["Labels"], running=True, address=address, instance=entry["Id"])
        try:
            return self._inspect(api, name)
        except docker.errors.NotFound:
            return None  # removed since it was listed

    def _how(self, died: Container, exit_code: int, *, oom_killed: bool | None = None) -> Container:
        """A container that ended, with how. Events do not say whether the kernel killed it: it is asked for."""
        if oom_killed is None:
            oom_killed = False
            with contextlib.suppress(RuntimeFailed), self._doing(f"look at {died.name}") as api:
                oom_killed = bool(api.inspect_container(died.name)["State"]["OOMKilled"])
        return containers.ended(died, exit_code, oom_killed=oom_killed)

    def _lines(
        self,
        name: str,
        *,
        timestamps: bool = True,
        tail: int | None = None,
        since: float | None = None,
        follow: bool = False,
    ) -> Iterator[bytes]:
        with self._doing(f"read the log of {name}") as api:
            stream = api.logs(
                name,
                stream=True,
                follow=follow,
                timestamps=timestamps,
                tail="all" if tail is None else tail,
                since=since or None,
            )
        return self._read(stream)

    def _read(self, stream: CancellableStream[bytes]) -> Iterator[bytes]:
        with contextlib.closing(stream), self._stream():
            yield from lines(stream)

    # ---- frozen ones

    def _kill_frozen(self, name: str) -> None:
        """On cgroup v1 a killed process that is frozen does not die, and the engine would wait for it. So the signal
        is sent here, and the process moved to a group that runs, where it dies before it does anything else."""
        with self._doing(f"kill {name}") as api:
            until = time.monotonic() + _DEATH_PATIENCE_S
            while (entry := self._entry(api, name)) is not None:
                group = cgroup.container_group(self.cgroups(), self.freezer(), entry["Id"])
                if not groups.kill(group, self.freezer()) and not _alive(entry):
                    return
                if time.monotonic() > until:
                    raise failed(f"kill {name}", "its processes do not die", 500)
                time.sleep(0.01)

    def _entry(self, api: docker.APIClient, name: str) -> Mapping[str, Any] | None:
        """One container as it is listed: that answers also while the engine waits for a frozen one to start."""
        found = api.containers(all=True, filters={"name": f"^/{name}$"})
        return next((entry for entry in found if f"/{name}" in entry["Names"]), None)

    # ---- the client

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[docker.APIClient]:
        with translated(what):
            yield self._api()

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """A stream that breaks has ended: the reader calls again."""
        with contextlib.suppress(OSError, docker.errors.DockerException, urllib3.exceptions.HTTPError):
            yield

    def _api(self) -> docker.APIClient:
        with self._lock:
            if self._client is None:
                address = self._engine or os.environ.get("DOCKER_HOST")
                self._client = docker.APIClient(
                    base_url=address, version="auto", timeout=self._answer_s, max_pool_size=_POOL
                )
            return self._client


def _alive(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and entry["State"] in ("running", "paused", "restarting")


def _image(api: docker.APIClient, name: str) -> Mapping[str, Any]:
    found = api.inspect_image(name)  # type: ignore[no-untyped-call] # the stubs do not type its decorator
    return cast("Mapping[str, Any]", found)


def _make_network(api: docker.APIClient, options: Mapping[str, Any]) -> None:
    try:
        api.create_network(**options)
    except docker.errors.APIError as e:
        if e.status_code not in (403, 409):  # another thread or agent made it just now
            raise


def _subnet(found: Mapping[str, Any]) -> str:
    return str(found["IPAM"]["Config"][0]["Subnet"])


def _address(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """The address that a container has, or was given for when it runs."""
    has = (n.get("IPAddress") or (n.get("IPAMConfig") or {}).get("IPv4Address") for n in networks.values())
    return next((address for address in has if address), "")
