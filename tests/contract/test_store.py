"""The contract of a Store, held by the one in memory, SeaweedFS and MinIO alike."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from node.bucket import cas
from node.bucket.errors import BucketError, Busy, Conflict, Denied, Missing, NoBucket
from node.bucket.memory import MemoryStore
from node.bucket.probe import probe
from node.bucket.records import Leader
from node.bucket.s3 import Credentials, S3Store
from node.bucket.store import Store
from tests.testbed.stores import StoreServer

REAL = [pytest.param("seaweedfs", marks=pytest.mark.store), pytest.param("minio", marks=pytest.mark.store)]
WRITERS = 8
RACES = 5


@pytest.fixture(params=["memory", *REAL])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    server: StoreServer = request.getfixturevalue(request.param)
    adapter = server.store(server.new_bucket(), "fleet/")
    yield adapter
    adapter.close()


@pytest.fixture(params=REAL)
def server(request: pytest.FixtureRequest) -> StoreServer:
    found: StoreServer = request.getfixturevalue(request.param)
    return found


def definite(call: Callable[[], str]) -> str | type[BucketError]:
    """The ETag, or which definite error; Busy is tried again."""
    for _ in range(50):
        try:
            return call()
        except Busy:
            time.sleep(0.01)
        except BucketError as e:
            return type(e)
    raise AssertionError("busy for 50 attempts")


def at_once(count: int, call: Callable[[int], str]) -> list[str | type[BucketError]]:
    """What `count` callers get who start together."""
    start = threading.Barrier(count)

    def one(number: int) -> str | type[BucketError]:
        start.wait(timeout=30)
        return definite(lambda: call(number))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_what_was_created_is_read_back_with_its_etag(store: Store) -> None:
    etag = store.create("owners/acme.json", b"\x00one\xff")
    found = store.get("owners/acme.json")
    assert (found.key, found.body, found.etag) == ("owners/acme.json", b"\x00one\xff", etag)
    assert '"' not in etag


def test_a_read_tells_the_stores_clock(store: Store) -> None:
    store.create("a", b"1")
    told = store.get("a").store_time
    assert told is not None
    assert abs(told - time.time()) < 60


def test_a_second_create_is_a_conflict_and_changes_nothing(store: Store) -> None:
    store.create("a", b"1")
    with pytest.raises(Conflict):
        store.create("a", b"2")
    assert store.get("a").body == b"1"


def test_a_replacement_names_the_etag_that_it_replaces(store: Store) -> None:
    first = store.create("a", b"1")
    second = store.replace("a", b"2", first)
    assert second != first
    assert store.get("a").etag == second
    assert store.get("a").body == b"2"


def test_a_stale_replacement_is_a_conflict_and_changes_nothing(store: Store) -> None:
    first = store.create("a", b"1")
    store.replace("a", b"2", first)
    with pytest.raises(Conflict):
        store.replace("a", b"3", first)
    assert store.get("a").body == b"2"


def test_replacing_what_is_not_there_is_missing_and_creates_nothing(store: Store) -> None:
    etag = store.create("a", b"1")
    store.delete(["a"])
    with pytest.raises((Missing, Conflict)):
        store.replace("a", b"2", etag)
    with pytest.raises(Missing):
        store.get("a")


def test_reading_what_is_not_there_is_missing(store: Store, tmp_path: Path) -> None:
    for call in (
        lambda: store.get("no"),
        lambda: store.head("no"),
        lambda: store.get_file("no", tmp_path / "no"),
    ):
        with pytest.raises(Missing):
            call()
    assert not (tmp_path / "no").exists()


def test_one_of_many_creators_wins(store: Store) -> None:
    def create(key: str, number: int) -> str:
        return store.create(key, f"{number}".encode())

    for race in range(RACES):
        key = f"race/{race}"
        answers = at_once(WRITERS, partial(create, key))
        winners = [n for n, answer in enumerate(answers) if isinstance(answer, str)]
        assert len(winners) == 1
        assert [a for a in answers if not isinstance(a, str)] == [Conflict] * (WRITERS - 1)
        assert store.get(key).body == f"{winners[0]}".encode()


def test_one_of_many_replacers_wins(store: Store) -> None:
    def replace(race: int, etag: str, number: int) -> str:
        return store.replace("race", f"{race} {number}".encode(), etag)

    etag = store.create("race", b"start")
    for race in range(RACES):
        answers = at_once(WRITERS, partial(replace, race, etag))
        winners = [n for n, answer in enumerate(answers) if isinstance(answer, str)]
        assert len(winners) == 1
        found = store.get("race")
        assert found.body == f"{race} {winners[0]}".encode()
        assert found.etag == answers[winners[0]]
        etag = found.etag


def test_no_increment_is_lost_among_writers_that_read_and_swap(store: Store) -> None:
    def leader(seq: int) -> Leader:
        return Leader(nonce=cas.new_nonce(), controller="c", seq=seq, ttl_s=1.0, url="")

    cas.write(store, "n", leader(0), None, give_up=cas.backoff())

    def add(_: int) -> None:
        for _attempt in range(500):
            held = cas.read(store, "n", Leader)
            assert held is not None
            try:
                cas.write(store, "n", leader(held.record.seq + 1), held.etag, give_up=cas.backoff())
            except Conflict:
                continue
            return
        raise AssertionError("never won")

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(add, range(WRITERS * 3)))
    held = cas.read(store, "n", Leader)
    assert held is not None
    assert held.record.seq == WRITERS * 3


def test_a_list_shows_every_write_and_no_deletion_at_once(store: Store) -> None:
    for n in range(20):
        etag = store.create(f"specs/t{n:02}.json", b"1")
        assert [(e.key, e.etag) for e in store.list(f"specs/t{n:02}")] == [(f"specs/t{n:02}.json", etag)]
        etag = store.replace(f"specs/t{n:02}.json", b"22", etag)
        (entry,) = store.list(f"specs/t{n:02}")
        assert (entry.etag, entry.size_bytes) == (etag, 2)
        assert abs(entry.modified - time.time()) < 60
    store.delete(["specs/t07.json"])
    assert len(list(store.list("specs/"))) == 19


def test_a_list_is_limited_to_its_prefix_and_in_order(store: Store) -> None:
    for key in ("specs/b.json", "specs/a.json", "specs/a-b.json", "specs2/a.json", "spec"):
        store.create(key, b"1")
    assert [e.key for e in store.list("specs/")] == ["specs/a-b.json", "specs/a.json", "specs/b.json"]
    assert [e.key for e in store.list("specs/", start_after="specs/a-b.json")] == ["specs/a.json", "specs/b.json"]
    assert [e.key for e in store.list("specs/", limit=2)] == ["specs/a-b.json", "specs/a.json"]
    assert list(store.list("specs/", limit=0)) == []
    assert list(store.list("none/")) == []


def test_a_list_goes_into_folders(store: Store) -> None:
    keys = {f"data/acme/e0000000{e}/app.db/{level:04x}/{n}.ltx" for e in (1, 2) for level in (0, 9) for n in (1, 2)}
    for key in keys:
        store.create(key, b"1")
    assert {e.key for e in store.list("data/acme/")} == keys
    assert {e.key for e in store.list("data/acme/e00000002/")} == {k for k in keys if "e00000002" in k}


def test_a_list_of_more_than_a_page_is_whole_and_is_deleted_whole(store: Store) -> None:
    keys = [f"many/{n:05}.json" for n in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.create(key, b"1"), keys))
    assert [e.key for e in store.list("many/")] == keys
    assert [e.key for e in store.list("many/", limit=1050)] == keys[:1050]
    assert [e.key for e in store.list("many/", start_after="many/00998.json")] == keys[999:]
    store.delete(keys)
    assert list(store.list("many/")) == []


def test_deleting_what_is_not_there_is_fine(store: Store) -> None:
    store.create("a", b"1")
    store.delete(["a", "b"])
    store.delete(["a"])
    store.delete([])
    assert list(store.list("")) == []


def test_keys_with_unusual_characters_come_back_as_written(store: Store) -> None:
    keys = ["odd/a b.json", "odd/a+b.json", "odd/a%20b.json", "odd/ü.json"]
    for key in keys:
        store.create(key, key.encode())
    assert {e.key for e in store.list("odd/")} == set(keys)
    assert all(store.get(key).body == key.encode() for key in keys)


def test_a_file_goes_up_and_comes_down(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 20_000)
    store.put_file("apps/x.tar.gz", source)
    store.put_file("apps/x.tar.gz", source)
    store.get_file("apps/x.tar.gz", target)
    assert target.read_bytes() == source.read_bytes()
    entry, metadata = store.head("apps/x.tar.gz")
    assert (entry.key, entry.size_bytes, metadata) == ("apps/x.tar.gz", source.stat().st_size, {})


def test_a_file_that_exists_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    store.create("a", b"new")
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        store.get_file("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_an_empty_object_is_an_object(store: Store, tmp_path: Path) -> None:
    store.create("empty", b"")
    assert store.get("empty").body == b""
    store.get_file("empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_a_good_store_passes_the_probe_and_is_left_as_it_was(store: Store) -> None:
    passed = probe(store)
    assert passed.clock_offset_s is not None
    assert abs(passed.clock_offset_s) < 5
    assert list(store.list("")) == []


def test_user_metadata_comes_with_lower_case_names(server: StoreServer) -> None:
    bucket = server.new_bucket()
    server.client.put_object(Bucket=bucket, Key="a", Body=b"1", Metadata={"Litestream-Timestamp": "2026"})
    assert server.store(bucket).head("a")[1] == {"litestream-timestamp": "2026"}


def test_two_prefixes_of_one_bucket_do_not_see_each_other(server: StoreServer) -> None:
    bucket = server.new_bucket()
    one, two = server.store(bucket, "one/"), server.store(bucket, "two/")
    one.create("a", b"1")
    two.create("a", b"2")
    two.delete(["a"])
    assert [e.key for e in one.list("")] == ["a"]
    assert list(two.list("")) == []


def test_wrong_credentials_are_denied(server: StoreServer) -> None:
    location = server.location(server.new_bucket())
    for wrong in (Credentials("nobody", "nothing"), Credentials(server.credentials.access_key, "nothing")):
        store = S3Store(location, credentials=wrong)
        for call in (lambda s=store: s.get("a"), lambda s=store: s.create("a", b"1"), lambda s=store: probe(s)):
            with pytest.raises(Denied):
                call()


def test_a_missing_bucket_is_named(server: StoreServer) -> None:
    store = server.store("no-such-bucket")
    for call in (
        lambda: store.get("a"),
        lambda: store.create("a", b"1"),
        lambda: list(store.list("")),
        lambda: probe(store),
    ):
        with pytest.raises(NoBucket, match="FLEET_BUCKET"):
            call()


def test_every_request_is_observed_with_its_outcome(server: StoreServer) -> None:
    seen: Counter[tuple[str, str | None]] = Counter()
    bucket = server.new_bucket()
    store = server.store(bucket, observe=lambda operation, _seconds, code: seen.update([(operation, code)]))
    store.create("a", b"1")
    with pytest.raises(Conflict):
        store.create("a", b"1")
    with pytest.raises(Missing):
        store.get("b")
    assert seen == {("create", None): 1, ("create", "conflict"): 1, ("get", "missing"): 1}
