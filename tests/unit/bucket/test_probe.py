"""The probe refuses every store that ownership cannot rest on, and says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node.bucket.errors import Ambiguous, Conflict, Denied, Missing, Unsupported
from node.bucket.memory import MemoryStore
from node.bucket.probe import LEFTOVER_S, probe
from node.bucket.store import Entry, Object
from tests.testbed.faults import Fault, FaultyStore


def no_sleep(_seconds: float) -> None:
    pass


class IgnoresCreate(MemoryStore):
    def create(self, key: str, body: bytes) -> str:
        return self.put(key, body)


class IgnoresMatch(MemoryStore):
    def replace(self, key: str, body: bytes, etag: str) -> str:
        self.get(key)
        return self.put(key, body)


class CreatesOnMatch(MemoryStore):
    def replace(self, key: str, body: bytes, etag: str) -> str:
        try:
            return super().replace(key, body, etag)
        except Missing:
            return self.put(key, body)


class RefusesEveryMatch(MemoryStore):
    def replace(self, key: str, body: bytes, etag: str) -> str:
        raise Conflict("always", key=key)


class ReadsStale(MemoryStore):
    def get(self, key: str) -> Object:
        found = super().get(key)
        return Object(key, found.etag, b'{"probe": 1}', found.store_time)


class ReadsLate(MemoryStore):
    def get(self, key: str) -> Object:
        raise Missing("not yet", key=key)


class ListsLate(MemoryStore):
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        return iter(())


class ListsStale(MemoryStore):
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Iterator[Entry]:
        for entry in super().list(prefix, start_after=start_after, limit=limit):
            yield Entry(entry.key, "0" * 32, entry.size_bytes, entry.modified)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (IgnoresCreate, "If-None-Match"),
        (IgnoresMatch, "stale update"),
        (CreatesOnMatch, "where there is no object"),
        (RefusesEveryMatch, "rejects If-Match"),
        (ReadsStale, "older object"),
        (ReadsLate, "cannot be read"),
        (ListsLate, "list after a write"),
        (ListsStale, "list after a write"),
    ],
)
def test_a_store_that_breaks_a_promise_is_refused(kind: type[MemoryStore], says: str) -> None:
    store = kind()
    with pytest.raises(Unsupported, match=says):
        probe(store, sleep=no_sleep)
    assert list(MemoryStore.list(store, "")) == []


def test_a_round_with_a_doubtful_answer_is_begun_again() -> None:
    inner = MemoryStore()
    for position in range(7):
        for fault in (Fault.BUSY, Fault.NOT_APPLIED, Fault.APPLIED):
            probe(FaultyStore.scripted(inner, *[Fault.NONE] * position, fault), sleep=no_sleep)


def test_a_store_that_never_answers_is_ambiguous_in_the_end() -> None:
    never = FaultyStore(MemoryStore(), lambda _operation, _key: Fault.NOT_APPLIED)
    with pytest.raises(Ambiguous):
        probe(never, sleep=no_sleep)


def test_a_reader_is_denied_and_told_so() -> None:
    class ReadOnly(MemoryStore):
        def create(self, key: str, body: bytes) -> str:
            raise Denied("read only", key=key)

    with pytest.raises(Denied, match="read only"):
        probe(ReadOnly(), sleep=no_sleep)


@pytest.mark.parametrize(
    ("store_s", "offset_s"),
    [(1000.0, 0.0), (999.2, 0.0), (1060.0, 60.0), (900.0, -99.0), (1000.4, 0.4)],
)
def test_the_clocks_difference_is_told_beyond_what_whole_seconds_leave_open(store_s: float, offset_s: float) -> None:
    passed = probe(MemoryStore(clock=lambda: store_s), clock=lambda: 1000.0)
    assert passed.clock_offset_s == pytest.approx(offset_s)


def test_a_store_without_a_clock_passes_without_one() -> None:
    class Timeless(MemoryStore):
        def get(self, key: str) -> Object:
            found = super().get(key)
            return Object(key, found.etag, found.body)

    assert probe(Timeless()).clock_offset_s is None


def test_what_dead_probes_left_behind_is_removed_after_a_while() -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    store.put("probe/old.json", b"1")
    now[0] = LEFTOVER_S + 5
    store.put("probe/new.json", b"1")
    probe(store, clock=lambda: now[0])
    assert [entry.key for entry in store.list("")] == ["probe/new.json"]
