"""The gateway: a table of routes, written to a file for the next start and told to HAProxy for now."""

from __future__ import annotations

import hashlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

from node.agent.gateway.admin import Admin, Processes
from node.agent.gateway.config import Files, GatewayConfig
from node.agent.gateway.errors import GatewayFailed, GatewayMisconfigured
from node.agent.gateway.process import GatewayProcess
from node.agent.gateway.table import (
    Entry,
    Peer,
    check_tenant,
    held,
    is_free,
    parse_map,
    render_map,
    routed,
    through,
    unrouted,
    with_route,
)
from node.agent.gateway.text import render
from node.agent.ports import Route

START_LIMIT_S = 15.0
POLL_S = 0.02


class HaproxyGateway:
    """Implements node.agent.ports.Gateway with one HAProxy. `folder` is seen by HAProxy under the same path.

    `uid`: HAProxy's user, who may read the folder and write `folder/run`. Raises GatewayFailed; what the process behind
    it raises passes through. A route is in the file before HAProxy hears of it, and is kept when HAProxy is away.
    """

    def __init__(
        self,
        config: GatewayConfig,
        process: GatewayProcess,
        folder: Path,
        uid: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._process = process
        self._files = Files(folder)
        self._uid = uid
        self._sleep = sleep
        self._admin = Admin(self._files.master, self._files.routes)
        self._lock = threading.Lock()
        self._table: dict[str, Entry] | None = None
        self._synced: int | None = None  # the worker that is known to have the table, None when unsure
        self._refused = b""  # the digest of a configuration that HAProxy would not take: not tried again
        self._refusal = ""  # why it would not
        self._pair_complaint = ""  # what is wrong with certificate and key, although it runs with those of before
        self._stopped = False

    def ensure(self) -> None:
        """HAProxy runs with this configuration and these routes; cheap when it does. Call it every second or so, and
        after a certificate changed: a new one is taken over without losing a request. Nothing once it was stopped."""
        with self._lock:
            if self._stopped:
                return
            self._ensure()
            if complaint := self._pair_complaint or self._refusal:
                raise GatewayMisconfigured(complaint)

    def stop(self) -> None:
        """Stop HAProxy for good, whoever else still ensures it; the routes stay in the file."""
        with self._lock:
            self._stopped = True
            self._synced = None
            self._process.stop()

    def route(self, tenant: str, route: Route) -> None:
        """Requests go there from now on; those that were held go on. Another tenant's old route to the same address
        is taken away: the address has a new owner."""
        check_tenant(tenant)
        entry = routed(route.address, route.token_sha256)
        with self._lock:
            self._change(with_route(self._entries(), tenant, entry))

    def hold(self, tenant: str, *, leaving: bool = False) -> None:
        """Requests wait for the next route; `leaving`: or until it is known which other node has the tenant now. When
        it answers, `in_flight` counts all that went to the old one."""
        check_tenant(tenant)
        with self._lock:
            self._change({tenant: held(self._entries().get(tenant), leaving=leaving)}, barrier=True)

    def unroute(self, tenant: str, reason: str) -> None:
        """Requests get 503 with the reason. When it answers, `in_flight` counts all that went to the old route."""
        check_tenant(tenant)
        with self._lock:
            self._change({tenant: unrouted(reason)}, barrier=True)

    def forget(self, tenant: str) -> None:
        """Requests get 404."""
        check_tenant(tenant)
        with self._lock:
            self._change({tenant: None}, barrier=True)

    def reach(self, tenant: str, peer: Peer) -> bool:
        """Requests go to another node's gateway, unless the tenant has an entry of this node's own: then False."""
        check_tenant(tenant)
        entry = through(peer)
        with self._lock:
            free = is_free(self._entries().get(tenant))
            if free:
                self._change({tenant: entry})
            return free

    def lose(self, tenant: str) -> None:
        """It is not known any more which other node has the tenant; what is said of it here stays."""
        check_tenant(tenant)
        with self._lock:
            if is_free(self._entries().get(tenant)):
                self._change({tenant: None})

    def used(self) -> dict[str, int]:
        """Tenants of other nodes that were asked for within the last minute, or are right now: requests so far."""
        return self._admin.counts("away")

    def cut(self, peer: Peer) -> int:
        """End every request that was sent to another node's gateway; answers how many. For one that is surely dead."""
        self._admin.barrier()
        return self._admin.cut(peer.ip, peer.port)

    def in_flight(self, tenant: str) -> int:
        """Requests that are being answered right now, WebSockets and streams among them; 0 when HAProxy is gone, for
        then they are as well. Those who wait for a held tenant are not in flight."""
        check_tenant(tenant)
        try:
            return self._admin.in_flight(tenant)
        except GatewayFailed:
            if not self._process.alive():
                return 0
            raise

    def tenants(self) -> dict[str, Entry]:
        """Every tenant that has a route, is held or unrouted: for an agent that starts and finds older ones."""
        with self._lock:
            return dict(self._entries())

    def _entries(self) -> dict[str, Entry]:
        if self._table is None:
            try:
                self._table = parse_map(self._files.routes.read_text().splitlines())
            except FileNotFoundError:
                self._table = {}
        return self._table

    def _change(self, changes: Mapping[str, Entry | None], *, barrier: bool = False) -> None:
        table = self._entries()
        changes = {t: e for t, e in changes.items() if table.get(t) != e}
        new = {t: e for t, e in {**table, **changes}.items() if e is not None}
        if changes:
            self._files.folder.mkdir(parents=True, exist_ok=True)
            self._write(self._files.routes, render_map(new).encode())
            self._table = new
        if self._stopped:
            return  # who comes after it reads the file
        if self._synced is None:
            self._ensure()
        try:
            self._admin.put(changes)
        except GatewayFailed:
            self._synced = None  # some may have been told: compare them all
            self._ensure()
        if barrier:
            self._admin.barrier()

    def _ensure(self) -> None:
        digest = self._write_files()
        processes = self._answering()
        if processes is None and not self._process.alive():
            self._synced = None
            self._files.master.unlink(missing_ok=True)
            self._process.start()
            processes = self._wait(lambda p: p.current is not None)
            self._accepted(digest)
        elif digest == self._applied():
            self._refused, self._refusal = b"", ""
        elif digest != self._refused:
            self._reload(digest)
            processes = None
        processes = processes or self._wait(lambda p: p.current is not None)
        if processes.current != self._synced:
            self._compare(processes)
            self._synced = processes.current

    def _answering(self) -> Processes | None:
        """Its processes, asked at its socket: far cheaper than asking the engine whether it runs. None: no answer."""
        try:
            return self._admin.processes()
        except GatewayFailed:
            return None

    def _reload(self, digest: bytes) -> None:
        """A new worker with the new configuration; the one before serves what it has to the end."""
        before = self._admin.processes()
        self._synced = None
        self._admin.reload()
        after = self._wait(
            lambda p: (
                p.failed_reloads > before.failed_reloads or (p.current is not None and p.current != before.current)
            )
        )
        if after.current != before.current and not after.failed_reloads:
            self._accepted(digest)
            return
        self._refused = digest
        self._refusal = (
            f"the gateway refuses its new configuration and goes on with the old: {self._process.output()[-800:]}"
        )

    def _accepted(self, digest: bytes) -> None:
        self._refused, self._refusal = b"", ""
        self._write(self._files.applied, digest)

    def _applied(self) -> bytes:
        return self._files.applied.read_bytes() if self._files.applied.exists() else b""

    def _wait(self, ready: Callable[[Processes], bool]) -> Processes:
        """The processes when they are as wanted. Bounded by the number of looks, not by a clock."""
        for _ in range(int(START_LIMIT_S / POLL_S)):
            try:
                processes = self._admin.processes()
            except GatewayFailed:
                if not self._process.alive():
                    break
            else:
                if ready(processes):
                    return processes
            self._sleep(POLL_S)
        raise GatewayFailed(f"the gateway does not start: {self._process.output()[-800:]}", retryable=True)

    def _compare(self, processes: Processes) -> None:
        """Every worker's map against the table; only what differs is told."""
        table = self._entries()
        for pid in processes.all:
            there = self._admin.routes(pid)
            changes: dict[str, Entry | None] = {t: e for t, e in table.items() if there.get(t) != e}
            changes.update({t: None for t in there if t not in table})
            if changes:
                self._admin.put(changes)

    def _write_files(self) -> bytes:
        """The folder as HAProxy should find it; answers the digest of all that needs a reload when it differs."""
        files = self._files
        files.run.mkdir(parents=True, exist_ok=True)
        os.chown(files.folder, 0, self._uid)
        files.folder.chmod(0o750)
        os.chown(files.run, self._uid, self._uid)
        files.run.chmod(0o700)
        wanted = {
            files.config: render(self._config, files).encode(),
            files.lua: resources.files(__package__).joinpath("hold.lua").read_bytes(),
        }
        self._pair_complaint = ""
        if self._config.tls_cert is not None and self._config.tls_key is not None:
            wanted[files.pem] = self._certificate(self._config.tls_cert, self._config.tls_key)
        if self._config.peer_keys and self._config.trust is not None:
            wanted[files.ca] = self._trusted(self._config.trust)
        if not files.routes.exists():
            self._write(files.routes, render_map(self._entries()).encode())
        for path, content in wanted.items():
            if not path.exists() or path.read_bytes() != content:
                self._write(path, content)
        return hashlib.sha256(b"".join(hashlib.sha256(wanted[path]).digest() for path in sorted(wanted))).digest()

    def _certificate(self, cert: Path, key: Path) -> bytes:
        """Both files in one, if they belong together; while they do not (one is renewed before the other), the pair of
        before if there is one. Raises GatewayMisconfigured when there is none."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
            return cert.read_bytes() + b"\n" + key.read_bytes()
        except (OSError, ssl.SSLError) as e:
            self._pair_complaint = f"FLEET_TLS_CERT={cert} and FLEET_TLS_KEY={key} are no usable pair: {e}"
            if not self._files.pem.exists():
                raise GatewayMisconfigured(self._pair_complaint) from None
            return self._files.pem.read_bytes()

    def _trusted(self, path: Path) -> bytes:
        """Who vouches for other gateways. What cannot be read leaves those of before."""
        try:
            return path.read_bytes()
        except OSError as e:
            if not self._files.ca.exists():
                raise GatewayMisconfigured(f"FLEET_TLS_CA={path} cannot be read: {e.strerror}") from None
            return self._files.ca.read_bytes()

    def _write(self, path: Path, content: bytes) -> None:
        """All of it or the old one, readable by HAProxy's group alone."""
        new = path.with_name(f".{path.name}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as f:
            os.fchown(f.fileno(), 0, self._uid)
            os.fchmod(f.fileno(), 0o640)
            f.write(content)
        new.replace(path)
