"""A write's outcome is definite: every doubtful answer at every step."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest

from node.bucket import cas
from node.bucket.cas import Event, State
from node.bucket.errors import Ambiguous, Busy, Conflict, Denied, Missing, NoBucket
from node.bucket.memory import MemoryStore
from node.bucket.records import Leader
from tests.testbed.faults import Fault, FaultyStore, Rates, seeded

KEY = "controllers/leader.json"


def leader(seq: int = 0, name: str = "me") -> Leader:
    return Leader(nonce=cas.new_nonce(), controller=name, seq=seq, ttl_s=15.0, url="http://127.0.0.1:7070")


def never(_attempt: int) -> float | None:
    return None


def times(count: int) -> cas.GiveUp:
    return lambda attempt: 0.0 if attempt < count else None


def no_sleep(seconds: float) -> None:
    assert seconds >= 0


def write(store: object, record: Leader, etag: str | None, give_up: cas.GiveUp) -> cas.Held[Leader]:
    return cas.write(store, KEY, record, etag, give_up=give_up, sleep=no_sleep)  # type: ignore[arg-type]  # fakes


def stored(inner: MemoryStore) -> Leader:
    held = cas.read(inner, KEY, Leader)
    assert held is not None
    return held.record


def test_the_table_answers_every_pair_or_refuses_it() -> None:
    known = {State.CLEAN, State.DIRTY}
    for state, event in itertools.product(State, Event):
        looked = event in (Event.MINE, Event.THEIRS)
        answered = event in (Event.DONE, Event.REFUSED)
        possible = (state in known and not looked) or (state is State.LOOKING and not answered)
        if possible:
            assert isinstance(cas.step(state, event), State)
        else:
            with pytest.raises(ValueError, match="cannot happen"):
                cas.step(state, event)


def test_doubt_is_never_forgotten_by_a_busy_answer() -> None:
    assert cas.step(cas.step(State.CLEAN, Event.UNKNOWN), Event.BUSY) is State.DIRTY


def test_reading_nothing_is_none() -> None:
    assert cas.read(MemoryStore(), KEY, Leader) is None


def test_a_created_record_can_be_replaced_by_what_the_write_answered() -> None:
    inner = MemoryStore()
    first = write(inner, leader(1), None, never)
    second = write(inner, leader(2), first.etag, never)
    assert cas.read(inner, KEY, Leader) == second


def test_a_busy_answer_is_tried_again() -> None:
    inner = MemoryStore()
    faulty = FaultyStore.scripted(inner, Fault.BUSY, Fault.BUSY)
    held = write(faulty, leader(1), None, times(5))
    assert stored(inner) == held.record
    assert len(faulty.log) == 3


def test_a_timeout_that_was_not_applied_is_repeated_until_definite() -> None:
    inner = MemoryStore()
    held = write(FaultyStore.scripted(inner, Fault.NOT_APPLIED, Fault.NOT_APPLIED), leader(1), None, times(5))
    assert stored(inner) == held.record


def test_a_timeout_that_was_applied_is_recognised_by_its_nonce() -> None:
    inner = MemoryStore()
    faulty = FaultyStore.scripted(inner, Fault.APPLIED)
    held = write(faulty, leader(1), None, times(5))
    assert [operation for operation, _, _ in faulty.log] == ["create", "create", "get"]
    assert held == cas.read(inner, KEY, Leader)


def test_a_write_that_lands_late_is_not_taken_for_somebody_elses() -> None:
    inner = MemoryStore()
    first = write(inner, leader(1), None, never)
    faulty = FaultyStore.scripted(inner, Fault.LATER)
    held = write(faulty, leader(2), first.etag, times(5))
    assert held == cas.read(inner, KEY, Leader)


def test_the_read_after_a_refusal_is_repeated_too() -> None:
    inner = MemoryStore()
    faulty = FaultyStore.scripted(inner, Fault.APPLIED, Fault.NONE, Fault.NOT_APPLIED, Fault.BUSY)
    held = write(faulty, leader(1), None, times(9))
    assert held == cas.read(inner, KEY, Leader)


def test_somebody_elses_record_is_a_conflict() -> None:
    inner = MemoryStore()
    theirs = write(inner, leader(7, "them"), None, never)
    with pytest.raises(Conflict):
        write(inner, leader(1), None, times(5))
    with pytest.raises(Conflict):
        write(inner, leader(1), "0" * 32, times(5))
    assert stored(inner) == theirs.record


def test_a_record_of_an_unknown_format_is_somebody_elses_too() -> None:
    inner = MemoryStore()
    inner.put(KEY, b'{"format":99,"nonce":"theirs"}')
    for body in (b'{"format":99,"nonce":"theirs"}', b"not json", b"[]"):
        inner.put(KEY, body)
        with pytest.raises(Conflict):
            write(inner, leader(1), None, times(5))


def test_replacing_a_record_that_is_gone_is_a_conflict() -> None:
    with pytest.raises(Conflict):
        write(MemoryStore(), leader(1), "0" * 32, times(5))


def test_a_create_that_is_refused_by_a_record_then_gone_is_a_conflict() -> None:
    class Fleeting(MemoryStore):
        def create(self, key: str, body: bytes) -> str:
            raise Conflict("there", key=key)

    with pytest.raises(Conflict):
        write(Fleeting(), leader(1), None, times(5))


def test_a_write_that_was_applied_and_then_replaced_by_another_is_lost() -> None:
    inner = MemoryStore()
    first = write(inner, leader(1), None, never)

    class Overtaken(MemoryStore):
        calls = 0

        def get(self, key: str) -> object:  # type: ignore[override]  # passes on
            return inner.get(key)

        def replace(self, key: str, body: bytes, etag: str) -> str:
            Overtaken.calls += 1
            if Overtaken.calls > 1:
                return inner.replace(key, body, etag)
            mine = inner.replace(key, body, etag)
            inner.replace(key, leader(9, "them").encode(), mine)
            raise Ambiguous("lost reply", key=key)

    with pytest.raises(Conflict):
        write(Overtaken(), leader(2), first.etag, times(5))
    assert stored(inner).controller == "them"


def test_giving_up_in_doubt_is_ambiguous() -> None:
    for faults in (
        [Fault.NOT_APPLIED],
        [Fault.LATER, Fault.BUSY],
        [Fault.APPLIED, Fault.NONE, Fault.NOT_APPLIED],
    ):
        with pytest.raises(Ambiguous, match=KEY):
            write(FaultyStore.scripted(MemoryStore(), *faults), leader(1), None, times(len(faults) - 1))


def test_giving_up_without_doubt_is_busy() -> None:
    inner = MemoryStore()
    with pytest.raises(Busy):
        write(FaultyStore.scripted(inner, Fault.BUSY, Fault.BUSY), leader(1), None, times(2))
    with pytest.raises(Missing):
        inner.get(KEY)


@pytest.mark.parametrize("error", [Denied, NoBucket])
def test_a_refusal_is_definite_only_when_no_attempt_is_under_way(error: type[Denied | NoBucket]) -> None:
    class Refusing(MemoryStore):
        def create(self, key: str, body: bytes) -> str:
            raise error("no", key=key)

    refusing = Refusing()
    with pytest.raises(error):
        write(refusing, leader(1), None, times(5))
    with pytest.raises(Ambiguous):
        write(FaultyStore.scripted(refusing, Fault.LATER), leader(1), None, times(5))


def test_a_writer_in_doubt_is_right_about_itself_whatever_the_answers() -> None:
    """Several writers each own a step of one counter; nobody who is told yes is missing, nobody told no is there."""
    with seeded() as rng:
        for _round in range(200):
            _history_is_told_truly(rng)


def _history_is_told_truly(rng: random.Random) -> None:
    inner = MemoryStore()
    history: list[str] = []
    inner_set = inner._set

    def spy(key: str, body: bytes, metadata: Mapping[str, str]) -> str:
        history.append(Leader.decode(body, key=key).nonce)
        return inner_set(key, body, metadata)

    inner._set = spy  # type: ignore[method-assign]  # the history of the key, as the store saw it
    rates = Rates(busy=0.15, not_applied=0.15, applied=0.15, later=0.15)
    writers = [FaultyStore.random(inner, rng, rates) for _ in range(3)]
    etag: str | None = None
    told: dict[str, type[Exception] | None] = {}
    for seq in range(10):
        record = leader(seq)
        try:
            etag = write(rng.choice(writers), record, etag, times(rng.randint(1, 6))).etag
            told[record.nonce] = None
            assert history.count(record.nonce) == 1
            assert history[-1] == record.nonce
        except (Conflict, Ambiguous, Busy) as e:
            told[record.nonce] = type(e)
        if rng.random() < 0.3:
            held = cas.read(inner, KEY, Leader)
            etag = held.etag if held else None
    for writer in writers:
        writer.settle()
    for nonce, error in told.items():
        assert history.count(nonce) <= 1
        if error is None:
            assert nonce in history
        if error is Busy:
            assert nonce not in history


def test_the_usual_backoff_doubles_is_bounded_and_ends() -> None:
    policy = cas.backoff(attempts=6, first_s=0.1, longest_s=1.0, draw=lambda: 1.0)
    assert [policy(n) for n in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, None]
    least = cas.backoff(attempts=6, first_s=0.1, longest_s=1.0, draw=lambda: 0.0)
    assert least(1) == 0.05


def test_nonces_differ() -> None:
    assert len({cas.new_nonce() for _ in range(100)}) == 100
