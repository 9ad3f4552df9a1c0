"""What every part of custody works with: the ports, the clocks, the bounds, and threads for calls that block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from node.agent.custody.claim import Me
from node.agent.custody.locks import Locks
from node.agent.custody.values import ReplicaTarget, SessionView
from node.agent.ports import Runtime, Volumes
from node.bucket.store import Store

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long custody waits, in seconds. Each bound is this side's: Litestream is never given one."""

    socket_s: float = 30.0  # a sidecar's socket appears
    poll_s: float = 5.0  # a sidecar says where it is
    durable_s: float = 30.0  # one caller of /durable waits
    settle_s: float = 300.0  # without progress of a first snapshot
    confirm_s: float = 10.0  # the last bytes of a release, until it says so; it is tried again and again
    stop_s: float = 40.0  # a sidecar's SIGTERM; its own last sync may take 30
    restore_s: float = 3600.0  # one file's restore
    wake_s: float = 10.0  # between two writes of when a tenant wants to wake


def _store_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(32, thread_name_prefix="custody-store")


def _engine_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(64, thread_name_prefix="custody-engine")


@dataclass(frozen=True, slots=True)
class Context:
    """Ports and clocks. `now` is unix time, `monotonic` any steady clock; `runtime_dir` is on tmpfs."""

    store: Store
    replica: ReplicaTarget
    runtime: Runtime
    volumes: Volumes
    session: Callable[[], SessionView]
    runtime_dir: Path
    now: Callable[[], float]
    monotonic: Callable[[], float]
    bounds: Bounds = field(default_factory=Bounds)
    locks: Locks = field(default_factory=Locks)
    # Apart from each other and from everyone else's: a restore of minutes must not hold up an acknowledgement.
    store_threads: ThreadPoolExecutor = field(default_factory=_store_threads)
    engine_threads: ThreadPoolExecutor = field(default_factory=_engine_threads)

    @property
    def me(self) -> Me:
        """This node now."""
        view = self.session()
        return Me(view.node, view.session, view.boot_id)

    async def on_store(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A blocking call to the bucket."""
        return await asyncio.get_running_loop().run_in_executor(self.store_threads, lambda: call(*args, **kwargs))

    async def on_engine(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A blocking call to the engine, a disk, or SQLite."""
        return await asyncio.get_running_loop().run_in_executor(self.engine_threads, lambda: call(*args, **kwargs))
