"""The simulated bucket: a real store's semantics, reached over a network that delays, fails, loses answers and races.

A request is applied at a moment of its own, whatever became of its sender: a PUT that was given up may still land.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from node.bucket import keys
from node.bucket.errors import Ambiguous, BucketError, Busy
from node.bucket.memory import MemoryStore
from node.bucket.store import Entry, Object
from tests.sim.clock import Scheduler
from tests.sim.process import wait

T = TypeVar("T")
Outcome = tuple[Any, BucketError | None]
Answer = Callable[[Outcome], None]


class Bucket(MemoryStore):
    """The truth. Tells `wrote` and `deleted` of every change, at the moment of the change."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self._lock = nullcontext()  # type: ignore[assignment] # one thread, and whoever judges reads during a write
        self.wrote: Callable[[str, bytes, bytes | None], None] = lambda _key, _body, _before: None
        self.deleted: Callable[[str], None] = lambda _key: None
        self.uploaded: Callable[[str, bytes, bytes | None, int], None] = lambda _key, _body, _before, _by: None

    def peek(self, key: str) -> bytes | None:
        """An object's body, for whoever judges."""
        found = self._objects.get(key)
        return found.body if found else None

    def keys(self, prefix: str) -> list[str]:
        """Every key under a prefix, for whoever judges."""
        return sorted(k for k in self._objects if k.startswith(prefix))

    def upload(self, key: str, body: bytes, by: int, at: float) -> str:
        """What Litestream does: write unconditionally. `by` is the volume it comes from, `at` its writer's time."""
        before = self.peek(key)
        etag = self.put(key, body, {"litestream-timestamp": stamp(at)})
        self.uploaded(key, body, before, by)
        return etag

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            if key in self._objects:
                self.deleted(key)
                super().delete((key,))

    def _set(self, key: str, body: bytes, metadata: Mapping[str, str]) -> str:
        before = self.peek(key)
        etag = super()._set(key, body, metadata)
        self.wrote(key, body, before)
        return etag


def stamp(at: float) -> str:
    """A moment as Litestream writes it beside its objects."""
    return datetime.fromtimestamp(at, UTC).isoformat()


@dataclass
class Trouble:
    """How requests fare: each a share of them, 0..1. `late` are applied up to `late_s` after their sender gave up."""

    down: bool = False
    slow_s: float = 0.0
    failed: float = 0.0
    lost: float = 0.0
    busy: float = 0.0
    late: float = 0.0
    late_s: float = 30.0
    mute: bool = False  # accepts, applies, never answers


class Network:
    """Between every machine and the bucket. `cut` are the names of who cannot reach it, `deaf` of who hears no answer,
    `slow` of whose requests and answers take up to so many seconds each; `last_word` is called when the next answer
    about a machine's lease is given."""

    def __init__(self, scheduler: Scheduler, rng: random.Random, bucket: Bucket) -> None:
        self.scheduler = scheduler
        self.bucket = bucket
        self.trouble = Trouble()
        self.cut: set[str] = set()
        self.deaf: set[str] = set()
        self.slow: dict[str, float] = {}
        self.last_word: dict[str, Callable[[], None]] = {}
        self.requests = 0
        self.note: Callable[[str], None] = lambda _: None
        self._rng = rng

    def request(
        self, who: str, what: str, key: str, work: Callable[[], object], patience_s: float, answer: Answer
    ) -> None:
        """Send one request; `answer` is called once, at the latest after `patience_s`."""
        self.requests += 1
        rng, at, trouble = self._rng, self.scheduler.now, self.trouble
        there, back = rng.uniform(0.003, 0.02), rng.uniform(0.003, 0.02)
        if slow_s := self.slow.get(who, 0.0):
            there += rng.uniform(0, slow_s)
            back += rng.uniform(0, slow_s)
        if trouble.slow_s:
            there += rng.uniform(0, trouble.slow_s)
            back += rng.uniform(0, trouble.slow_s)
        if trouble.down or who in self.cut:
            # Some of what was on its way arrives all the same; its answer does not.
            if what not in READS and rng.random() < 0.3:
                self.scheduler.after(there, lambda: void_of(work))
            self._give_up(who, what, key, min(patience_s, 2.0), answer)
            return
        draw = rng.random()
        if trouble.mute or who in self.deaf or draw < trouble.lost:
            self.scheduler.after(there, lambda: void_of(work))
            self._give_up(who, what, key, patience_s, answer)
        elif draw < trouble.lost + trouble.late:
            if what not in READS:
                self.scheduler.after(
                    patience_s + rng.uniform(0, trouble.late_s), lambda: self._late(who, what, key, work)
                )
            self._give_up(who, what, key, patience_s, answer)
        elif draw < trouble.lost + trouble.late + trouble.failed:
            self.scheduler.at(at + there + back, lambda: answer((None, Ambiguous(f"{key}: 503", key=key))))
        elif draw < trouble.lost + trouble.late + trouble.failed + trouble.busy:
            self.scheduler.at(at + there + back, lambda: answer((None, Busy(f"{key}: 409", key=key))))
        else:
            self._deliver(who, what, key, work, there, back, patience_s, answer)

    def _deliver(
        self, who: str, what: str, key: str, work: Callable[[], object], there: float, back: float, patience_s: float,
        answer: Answer,
    ) -> None:  # fmt: skip
        """Apply and answer; what takes longer than the sender's patience is applied all the same."""
        sent = self.scheduler.now

        def apply() -> None:
            outcome = run(work)
            if who not in self.cut and there + back < patience_s:
                if outcome[1] is None and key == keys.node(who) and who in self.last_word:
                    self.scheduler.at(sent + there + back, self.last_word.pop(who))  # before anything can be said to it
                self.scheduler.at(sent + there + back, lambda: answer(outcome))
            else:
                self.scheduler.at(sent + patience_s, lambda: self._no_answer(who, what, key, answer))

        if there < patience_s:
            self.scheduler.at(sent + there, apply)
        else:
            self._give_up(who, what, key, patience_s, answer)
            if what not in READS:
                self.scheduler.at(sent + there, lambda: self._late(who, what, key, work))

    def _late(self, who: str, what: str, key: str, work: Callable[[], object]) -> None:
        outcome = run(work)
        self.note(f"late {what} {key} of {who}: {'applied' if outcome[1] is None else outcome[1].code}")

    def _give_up(self, who: str, what: str, key: str, after_s: float, answer: Answer) -> None:
        self.scheduler.after(after_s, lambda: self._no_answer(who, what, key, answer))

    def _no_answer(self, who: str, what: str, key: str, answer: Answer) -> None:
        self.note(f"no answer to {what} {key} of {who}")
        answer((None, Ambiguous(f"{key}: no answer", key=key)))


READS = frozenset({"get", "list", "head"})


def run(work: Callable[[], object]) -> Outcome:
    """The outcome of a request at the bucket."""
    try:
        return work(), None
    except BucketError as e:
        return None, e


def void_of(work: Callable[[], object]) -> None:
    """Apply, and nobody hears."""
    run(work)


class Client:
    """A Store for one process: each call gives way until its answer, and is tried once."""

    def __init__(self, network: Network, who: str, patience_s: float) -> None:
        self._network = network
        self._bucket = network.bucket
        self._who = who
        self._patience_s = patience_s

    def _call(self, what: str, key: str, work: Callable[[], T]) -> T:
        value, error = wait(lambda go_on: self._network.request(self._who, what, key, work, self._patience_s, go_on))
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return] # what `work` returned

    def get(self, key: str) -> Object:
        return self._call("get", key, lambda: self._bucket.get(key))

    def fetch(self, keys: list[str]) -> dict[str, bytes]:
        """Several objects in one request, those that are there; what a restore reads."""
        found = self._call("get", keys[0] if keys else "", lambda: {key: self._bucket.peek(key) for key in keys})
        return {key: body for key, body in found.items() if body is not None}

    def create(self, key: str, body: bytes) -> str:
        return self._call("create", key, lambda: self._bucket.create(key, body))

    def replace(self, key: str, body: bytes, etag: str) -> str:
        return self._call("replace", key, lambda: self._bucket.replace(key, body, etag))

    def put_file(self, key: str, path: Path) -> None:
        raise NotImplementedError

    def get_file(self, key: str, path: Path) -> None:
        self.get(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        found = self._call(
            "list", prefix, lambda: list(self._bucket.list(prefix, start_after=start_after, limit=limit))
        )
        return iter(found)

    def head(self, key: str) -> tuple[Entry, dict[str, str]]:
        return self._call("head", key, lambda: self._bucket.head(key))

    def delete(self, keys: Iterable[str]) -> None:
        named = list(keys)
        self._call("delete", named[0] if named else "", lambda: self._bucket.delete(named))
