"""Litestream, modelled: copies of what was committed go to the bucket one after the other, without any fencing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node.agent.custody import ltx
from node.agent.custody.litestream import SocketError, Synced, SyncFailed
from node.bucket import keys
from tests.sim.disk import SKIPPED, encode, listed
from tests.sim.store import Outcome

if TYPE_CHECKING:
    from tests.sim.machine import Container

PATIENCE_S = 5.0
RETRY_S = 1.0
LAG_S = 1.0


@dataclass
class Stream:
    """One file on its way: the newest transaction that the bucket is known to have, and who waits for which."""

    db: str
    replicated: int = 0
    listed: bool = False
    flying: bool = False
    copying: bool = False
    stamps: dict[int, float] = field(default_factory=dict)
    waiting: list[tuple[int, asyncio.Future[int]]] = field(default_factory=list)


class Litestream:
    """What runs in a sidecar container: it streams the declared files of one volume to one epoch's prefix."""

    def __init__(self, container: Container, databases: tuple[str, ...]) -> None:
        self._c = container
        self._world = container.machine.world
        self.up = False
        self.streams = {db: Stream(db) for db in databases}

    @property
    def prefix(self) -> str:
        """Where it streams to."""
        return keys.epoch_data(self._c.tenant, self._c.epoch)

    def start(self) -> None:
        """It begins by looking what the bucket has."""
        self.up = True
        for s in self.streams.values():
            self._look(s)

    def committed(self, db: str) -> None:
        """Something was committed: it is copied within a second."""
        s = self.streams[db]
        if self.up and not s.copying:
            s.copying = True
            self._world.scheduler.after(
                self._world.rng.uniform(0.05, LAG_S), lambda: self._c.do(lambda: self._copied(s))
            )

    def _copied(self, s: Stream) -> None:
        s.copying = False
        self._push(s)

    def _look(self, s: Stream) -> None:
        def found(outcome: Outcome) -> None:
            entries, error = outcome
            if error is not None:
                self._world.scheduler.after(RETRY_S, lambda: self._c.do(lambda: self._look(s)))
                return
            there = ltx.seen(listed(entries, self.prefix).get(s.db, ()))
            file = self._c.volume.file(s.db)
            if there > file.txid:  # a volume behind the bucket silently becomes its new head
                file.raw += [SKIPPED] * (there - file.txid)
                file.raw.append(encode(file.rows))
                file.copied = len(file.rows)
            s.replicated, s.listed = min(there, file.txid), True
            self._push(s)

        bucket = self._world.bucket
        self._send("list", self.prefix, lambda: list(bucket.list(self.prefix)), found)

    def _push(self, s: Stream) -> None:
        """Copy what is new, and send what the bucket does not have yet, one object after the other."""
        file = self._c.volume.file(s.db)
        if not s.listed:
            return
        if file.rows:
            file.copy_new()
        self._settle(s)
        if s.flying or s.replicated >= file.txid:
            return
        s.flying = True
        txid = s.replicated + 1
        body = file.raw[txid - 1]
        key = f"{self.prefix}{s.db}/0000/{ltx.hex16(txid)}-{ltx.hex16(txid)}.ltx"

        def sent(outcome: Outcome) -> None:
            s.flying = False
            if outcome[1] is not None:
                self._world.scheduler.after(RETRY_S, lambda: self._c.do(lambda: self._push(s)))
                return
            s.replicated = max(s.replicated, txid)
            self._push(s)

        bucket, c = self._world.bucket, self._c
        at = s.stamps.setdefault(txid, self._world.scheduler.now)
        self._send("put", key, lambda: bucket.upload(key, body, c.volume.number, at), sent)

    def _send(self, what: str, key: str, work: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        c = self._c
        who = c.machine.name
        self._world.network.request(who, what, key, work, PATIENCE_S, lambda outcome: c.do(lambda: then(outcome)))

    def _settle(self, s: Stream) -> None:
        due = [(txid, f) for txid, f in s.waiting if txid <= s.replicated]
        s.waiting = [(txid, f) for txid, f in s.waiting if txid > s.replicated]
        for txid, future in due:
            if not future.done():
                future.set_result(txid)

    async def sync(self, db: str, *, wait: bool) -> Synced:
        """`POST /sync`: everything committed before the call is copied, and with `wait` in the bucket."""
        s, file = self.streams[db], self._c.volume.file(db)
        if not file.rows:
            raise SyncFailed("no position, waiting for data", absent=True)
        if not s.listed:
            if not wait:
                raise SocketError("it is still looking at the bucket")
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            s.waiting.append((1, future))
            await future
        file.copy_new()
        target = file.txid
        self._push(s)
        if wait and s.replicated < target:
            done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            s.waiting.append((target, done))
            await done
        return Synced(file.txid, s.replicated)

    def died(self) -> None:
        """Its socket is closed: who waits hears it."""
        self.up = False
        for s in self.streams.values():
            for _, future in s.waiting:
                if not future.done():
                    future.set_exception(SocketError("connection closed"))
            s.waiting.clear()


class Socket:
    """The agent's end of a sidecar's control socket."""

    def __init__(self, find: Callable[[], Container | None]) -> None:
        self._find = find

    async def sync(self, path: str, *, wait: bool) -> Synced:
        """As the real one; a sidecar that stands still does not answer."""
        return await (await self._answering()).sync(path.removeprefix("/data/"), wait=wait)

    async def info(self) -> dict[str, object]:
        """It answers."""
        await self._answering()
        return {}

    def close(self) -> None:
        """Nothing is kept."""

    async def _answering(self) -> Litestream:
        c = self._find()
        if c is None or c.litestream is None or not c.running:
            raise SocketError("no such socket")
        if not c.moves:
            moving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            c.do(lambda: None if moving.done() else moving.set_result(None))
            await moving
        return c.litestream
