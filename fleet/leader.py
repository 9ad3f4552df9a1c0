"""Whether this controller acts: it holds the controllers' lease in the bucket, and takes it when its holder is gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from fleet.bucket import Bucket
from fleet.core import leading
from fleet.core.leading import ALERT_LOOK_S, ALERT_S, LOOKS, Me, Seen
from fleet.events import Events
from node.bucket import keys
from node.bucket.cas import Held, new_nonce
from node.bucket.errors import BucketError, Conflict
from node.bucket.records import Leader

RETRY_S = 1.0
_POKES = 5

log = structlog.get_logger("fleet.leader")


class Leadership:
    """`acts` is this controller's answer. `on_change` is called when it changes, `on_poke` when another controller has
    changed what should be."""

    def __init__(self, me: Me, bucket: Bucket, events: Events) -> None:
        self.me = me
        self._bucket = bucket
        self._events = events
        self._look_s = me.ttl_s / LOOKS
        self._seen: Seen | None = None
        self._mine: Held[Leader] | None = None
        self._until = 0.0
        self._alert_until = 0.0
        self._said: bool | None = None
        self._poking: asyncio.Task[None] | None = None
        self._poke_again = False
        self.leader: Leader | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.on_poke: Callable[[], None] = lambda: None

    def acts(self) -> bool:
        """Whether this controller acts now: it leads, by what the bucket said within the last ttl."""
        return self._mine is not None and time.monotonic() < self._until

    async def run(self) -> None:
        """Lead or wait to, until cancelled."""
        while True:
            pause_s = await self.step()
            await asyncio.sleep(pause_s)

    async def step(self) -> float:
        """Look once and take or keep the lease if it may be had; answers in how many seconds to look again."""
        try:
            pause_s = await self._renew(self._mine) if self._mine is not None else await self._look()
        except BucketError as e:
            log.warning("the controllers' lease is out of reach", error=str(e))
            pause_s = RETRY_S
        self._say()
        return pause_s

    async def release(self) -> None:
        """Let the next one lead at once; nothing is said where the bucket does not answer."""
        if self._mine is not None:
            record = leading.released(self._mine.record, nonce=new_nonce())
            with contextlib.suppress(BucketError):
                await self._bucket.write(keys.LEADER, record, self._mine.etag)
            self._mine = None

    def poke(self) -> None:
        """This controller changed what should be: whoever leads is told, through the bucket."""
        if self.acts():
            return
        if self._poking is not None and not self._poking.done():
            self._poke_again = True
            return
        self._poking = asyncio.create_task(self._poke(), name="poke")

    async def _poke(self) -> None:
        for _ in range(_POKES):
            self._poke_again = False
            try:
                held = await self._bucket.read(keys.LEADER, Leader)
                if held is None:
                    return
                await self._bucket.write(keys.LEADER, leading.poked(held.record, nonce=new_nonce()), held.etag)
            except Conflict:
                continue
            except BucketError as e:
                log.warning("the leader could not be told of a change: it finds it later", error=str(e))
                return
            if not self._poke_again:
                return

    async def _look(self) -> float:
        began = time.monotonic()
        held = await self._bucket.read(keys.LEADER, Leader)
        ended = time.monotonic()
        self.leader = held.record if held is not None else None
        self._seen, verdict = leading.judge(self.me, self._seen, self.leader, began=began, ended=ended)
        if verdict != "theirs":
            return await self._take(held)
        return self._look_s

    async def _take(self, before: Held[Leader] | None) -> float:
        """Write this controller into the record; whoever was faster leads."""
        record = leading.taken(self.me, before.record if before is not None else None, nonce=new_nonce())
        began = time.monotonic()
        try:
            self._mine = await self._bucket.write(keys.LEADER, record, before.etag if before is not None else None)
        except Conflict:
            self._mine = None
            return RETRY_S / 10
        self.leader, self._until = self._mine.record, began + self._mine.record.ttl_s
        return self._look_s

    async def _renew(self, mine: Held[Leader]) -> float:
        """Keep the lease. Between two renewals the record is only read, and only where others write as well."""
        due = self._until - mine.record.ttl_s + self._look_s
        if time.monotonic() >= due:
            pause_s = await self._take(mine)
            if self._mine is not None:
                return self._pause(pause_s)
        held = await self._bucket.read(keys.LEADER, Leader)
        if held is None:
            self._mine = None
        elif held.etag != mine.etag:
            self._changed(held)
        return self._pause(due - time.monotonic())

    def _changed(self, held: Held[Leader]) -> None:
        """Somebody else wrote the record: a word to this controller, or it leads itself from now on."""
        before = self.leader
        self.leader = held.record
        if held.record.controller != self.me.name or held.record.released:
            self._mine = None
            return
        self._mine = held
        if before is None or before.poked != held.record.poked:
            self._alert_until = time.monotonic() + ALERT_S
            self.on_poke()

    def _pause(self, pause_s: float) -> float:
        alert = time.monotonic() < self._alert_until
        return max(0.0, min(pause_s, ALERT_LOOK_S) if alert else pause_s)

    def _say(self) -> None:
        now = self.acts()
        if now == self._said:
            return
        self._said = now
        who = self.leader.controller if self.leader is not None else "nobody"
        text = f"this controller ({self.me.name}) acts" if now else f"controller {who} acts, this one stands by"
        self._events.emit("leader", text, reason="leads" if now else "stands_by")
        self.on_change()
