"""Where the product touches the real world, and what is there in its place: clocks, threads, files, sockets.

`installed(world)` puts all of it in place for one run at a time, and takes it out again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from fleet import bucket, leader, leases
from node.agent import app, ports, settling, tenant, walk
from node.agent import node as node_module
from node.agent.custody import (
    custody,
    fleetfile,
    freezer,
    garbage,
    guard,
    link,
    look,
    ltx,
    marker,
    registrar,
    restore,
    sessionfile,
    settle,
    sidecar,
    supervise,
    view,
    volume,
)
from node.agent.custody.context import Context
from node.agent.custody.fleetfile import Remembered
from node.agent.custody.held import HeldTenant
from node.agent.custody.marker import Marker
from node.agent.custody.sessionfile import Saved
from node.agent.custody.source import Source
from node.agent.ports import JobResult
from node.api import Assignment
from node.bucket import cas, keys
from node.bucket.errors import BucketError
from node.bucket.records import Record
from tests.sim import agent as sim_agent
from tests.sim import guard as sim_guard
from tests.sim.disk import SKIPPED, File, Volume, read_chain
from tests.sim.process import process, sleep
from tests.sim.sidecar import Socket
from tests.sim.store import Client

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

T = TypeVar("T")
GRACE_S = 2.0
_world: World | None = None


def world() -> World:
    """The world that is running."""
    assert _world is not None
    return _world


def machine_of(path: Path) -> Machine:
    """The machine whose path this is."""
    return world().machines[path.parts[2]]


def volume_of(path: Path) -> Volume:
    """The volume whose path this is."""
    return machine_of(path).disk.volumes[path.parts[3]]


def file_of(vol: ports.Volume, db: str) -> File | None:
    """A file of a volume, None if there is none (any more)."""
    found = machine_of(vol.data).disk.volumes.get(vol.data.parts[3])
    return found.files.get(db) if found else None


# ---- time, threads, chance

_TIME = SimpleNamespace(monotonic=lambda: process().clock.now(), time=lambda: process().clock.now(), sleep=sleep)
_SECRETS = SimpleNamespace(token_hex=lambda n: f"{world().number():0{2 * n}x}")


async def in_thread(work: Callable[[], T]) -> T:
    """A thread that gives way at each request."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


class Log:
    """The product's log goes into the trace."""

    def _say(self, event: str, /, **what: object) -> None:
        found = world()
        if found.verbose:
            said = " ".join(f"{name}={value}" for name, value in what.items() if name != "hint")
            found.note(f"{process().name}: log {event} {said}")

    debug = info = warning = error = _say

    def exception(self, event: str, /, **what: object) -> None:
        """A defect that the product caught itself."""
        world().caught(event)


# ---- files


def _write_marker(home: Path, found: Marker) -> None:
    volume_of(home).marker = found


def _read_marker(home: Path) -> Marker | None:
    vol = machine_of(home).disk.volumes.get(home.parts[3])
    return vol.marker if vol else None


def _newest_raw(vol: ports.Volume, db: str) -> int:
    found = file_of(vol, db)
    return found.txid if found else 0


def _raw_file(vol: ports.Volume, db: str, txid: int) -> Path:
    return vol.meta / db / f"{ltx.hex16(txid)}-{ltx.hex16(txid)}.ltx"


def _etags(path: Path) -> frozenset[str]:
    return volume_of(path).file(path.parts[5]).etags(int(path.name[:16], 16))


def _size_bytes(vol: ports.Volume, db: str) -> int | None:
    found = file_of(vol, db)
    return len(found.rows) if found else None


def _intact(vol: ports.Volume, databases: Iterable[str]) -> bool:
    return all(found.intact for db in databases if (found := file_of(vol, db)))


def _new_stream(vol: ports.Volume) -> None:
    for found in volume_of(vol.data).files.values():
        found.forget_copies()


def _skipped(t: HeldTenant, nexts: Mapping[str, int]) -> bool:
    if t.volume is None:
        return False
    files = {db: file_of(t.volume, db) for db in nexts}
    return not all((f := files[db]) and f.txid >= txid and f.raw[txid - 1] != SKIPPED for db, txid in nexts.items())


def _flush(vol: ports.Volume, databases: Iterable[str]) -> None:
    for db in databases:
        if found := file_of(vol, db):
            found.flush()


@contextmanager
def _no_folder(**_: object) -> Iterator[str]:
    yield "/sim"


def _load(folder: Path) -> Saved | None:
    return machine_of(folder).run.saved


def _save(folder: Path, saved: Saved) -> None:
    machine_of(folder).run.saved = saved


def _forget(folder: Path) -> None:
    machine_of(folder).run.saved = None


def _recall(folder: Path) -> Remembered | None:
    m = machine_of(folder)
    return Remembered(m.disk.fleet, m.name, m.disk.machine_id) if m.disk.fleet else None


def _remember(folder: Path, what: Remembered) -> None:
    disk = machine_of(folder).disk
    disk.fleet, disk.machine_id = what.id, what.machine


class Memory:
    """What an agent remembers for the next one."""

    @staticmethod
    def remember(folder: Path, want: Assignment) -> None:
        machine_of(folder).run.assignments[want.tenant] = want

    @staticmethod
    def remember_worker(folder: Path, name: str, fingerprint: str) -> None:
        machine_of(folder).run.workers[name] = fingerprint

    @staticmethod
    def worker(folder: Path, name: str) -> str:
        return machine_of(folder).run.workers.get(name, "")

    @staticmethod
    def forget(folder: Path, name: str) -> None:
        machine_of(folder).run.assignments.pop(name, None)

    @staticmethod
    def recall(folder: Path) -> dict[str, Assignment]:
        return dict(machine_of(folder).run.assignments)


# ---- containers


def _socket(path: Path) -> Socket:
    m, name = machine_of(path), path.parts[3]
    return Socket(lambda: m.find(name, "sidecar"))


async def _healthy(address: str, path: str, *, timeout_s: float, alive: Callable[[], bool]) -> str:
    await asyncio.sleep(0.1)
    return "" if alive() else "it ended"


async def _restored(
    ctx: Context, t: HeldTenant, vol: ports.Volume, uid: int, db: str, of: Source
) -> JobResult:  # fmt: skip
    return await ctx.on_engine(_restore, ctx, vol, db, of)


def _restore(ctx: Context, vol: ports.Volume, db: str, of: Source) -> JobResult:
    """`litestream restore -txid`: one listing, then every object of the chain."""
    store = ctx.store
    assert isinstance(store, Client)
    prefix = keys.epoch_data(of.tenant, of.epoch)
    sleep(world().rng.uniform(0.05, 1.0))
    try:
        known = ltx.by_database(store.list(f"{prefix}{db}/"), prefix).get(db, ())
        bodies = store.fetch([o.key for o in ltx.plan(known, of.txid)])
    except BucketError as e:
        return JobResult(1, f"connection: {e}")
    if not {o.key for o in ltx.plan(known, of.txid)} <= set(bodies):
        return JobResult(1, "an object is missing")
    rows = read_chain(known, of.txid, bodies)
    if rows is None:
        return JobResult(1, "txid not available")
    found = volume_of(vol.data)
    found.files[db] = File(rows=rows)
    return JobResult(0, "")


_horizon_of = garbage.horizon


def _horizon(now: float, retention_s: float) -> float:
    return _horizon_of(now, retention_s, GRACE_S)


def _nothing(*_: object, **__: object) -> None:
    return None


_decode = Record.__dict__["decode"].__func__


@classmethod  # type: ignore[misc] # it becomes one of Record
def _decoded_once(cls: type[Record], body: bytes, *, key: str) -> Record:
    """Records are values: one that was read before is the same one."""
    known = world().decoded
    found = known.get((cls, body))
    if found is None:
        found = known[cls, body] = _decode(cls, body, key=key)
    return found


def _table() -> Mapping[tuple[Any, str], Any]:
    return {**_of_guard(), **_of_files(), **_of_agent(), **_of_controller()}


def _of_guard() -> dict[tuple[Any, str], Any]:
    log = Log()
    return {
        (view, "boottime"): lambda: process().clock.now(),
        (view, "boot_id"): lambda: sim_guard.here().boot_id,
        (guard, "LinkServer"): sim_guard.LinkServer,
        (guard, "Keeper"): sim_guard.Keeper,
        (guard, "in_thread"): in_thread,
        (guard, "time"): _TIME,
        (guard, "_LOOK_S"): 5.0,
        (guard, "log"): log,
        (registrar, "in_thread"): in_thread,
        (registrar, "time"): _TIME,
        (registrar, "probe"): _nothing,
        (registrar, "log"): log,
        (link, "time"): _TIME,
        (link, "_HEARTBEAT_S"): 5.0,
        (link, "log"): log,
        (sessionfile, "load"): _load,
        (sessionfile, "save"): _save,
        (sessionfile, "forget"): _forget,
        (fleetfile, "recall"): _recall,
        (fleetfile, "_remember"): _remember,
        (fleetfile, "secrets"): _SECRETS,
        (freezer, "freeze"): lambda m: m.freeze() or True,
        (freezer, "thaw"): lambda m: m.thaw() or True,
        (freezer, "is_frozen"): lambda m: m.frozen,
        (freezer, "processes"): lambda m: [],
        (freezer, "kill"): lambda m, **_: m.kill_all() or True,
        (Record, "decode"): _decoded_once,
        (cas, "new_nonce"): lambda: f"{world().number():032x}",
    }


def _of_files() -> dict[tuple[Any, str], Any]:
    return {
        (marker, "read"): _read_marker,
        (marker, "write"): _write_marker,
        (volume, "newest_raw"): _newest_raw,
        (volume, "raw_file"): _raw_file,
        (volume, "raw_written"): _nothing,
        (volume, "etags"): _etags,
        (volume, "size_bytes"): _size_bytes,
        (volume, "is_empty"): lambda vol: volume_of(vol.data).empty,
        (volume, "flush"): _flush,
        (volume, "intact"): _intact,
        (supervise, "_skipped"): _skipped,
        (garbage, "horizon"): _horizon,
        (look, "tempfile"): SimpleNamespace(TemporaryDirectory=_no_folder),
        (look, "filecmp"): SimpleNamespace(cmp=lambda *_, **__: False),
    }


def _of_agent() -> dict[tuple[Any, str], Any]:
    log = Log()
    return {
        (restore, "_new_stream"): _new_stream,
        (settle, "_RETRY_S"): 0.5,
        (sidecar, "ControlSocket"): _socket,
        (sidecar, "write_config"): _nothing,
        (sidecar, "config"): SimpleNamespace(
            sidecar=_nothing, SOCKET="ls.sock", data_path=lambda db: db, NO_CHECKPOINTS="", FILE=""
        ),
        (restore, "write_config"): _nothing,
        (restore, "_job"): _restored,
        (restore, "nudge"): _nothing,
        (restore, "_unlink"): _nothing,
        (restore, "shutil"): SimpleNamespace(rmtree=_nothing),
        (custody, "log"): log,
        (walk, "Door"): sim_agent.Door,
        (walk, "secretfiles"): SimpleNamespace(write=_nothing, folder=_nothing, remove=_nothing),
        (walk, "memory"): Memory,
        (walk, "wait_healthy"): _healthy,
        (walk, "time"): _TIME,
        (walk, "log"): log,
        (tenant, "memory"): Memory,
        (tenant, "log"): log,
        (node_module, "memory"): Memory,
        (node_module, "time"): _TIME,
        (node_module, "log"): log,
        (app, "log"): log,
        (settling, "log"): log,
    }


def _of_controller() -> dict[tuple[Any, str], Any]:
    log = Log()
    return {
        (leases, "log"): log,
        (leases, "time"): _TIME,
        (leases, "new_nonce"): lambda: f"{world().number():032x}",
        (leader, "log"): log,
        (leader, "time"): _TIME,
        (leader, "new_nonce"): lambda: f"{world().number():032x}",
        (bucket, "time"): _TIME,
    }


@contextmanager
def installed(running: World) -> Iterator[None]:
    """The product runs in this world until the end of the block."""
    global _world
    table = _table()
    before = {(where, name): inspect.getattr_static(where, name) for where, name in table}
    writing: Any = cas.write
    backing: Any = cas.backoff
    sleeping, drawing = writing.__kwdefaults__["sleep"], backing.__kwdefaults__["draw"]
    try:
        _world = running
        for (where, name), value in table.items():
            setattr(where, name, value)
        writing.__kwdefaults__["sleep"] = sleep
        backing.__kwdefaults__["draw"] = running.rng.random
        yield
    finally:
        for (where, name), value in before.items():
            setattr(where, name, value)
        writing.__kwdefaults__["sleep"] = sleeping
        backing.__kwdefaults__["draw"] = drawing
        _world = None
