"""The faulty proxy in front of a real store does what it says, and nothing to what it lets pass."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from node.bucket import cas
from node.bucket.errors import Ambiguous
from node.bucket.probe import probe
from node.bucket.records import Leader
from node.bucket.s3 import S3Store
from tests.testbed.faulty import FaultyProxy, Mode, faulty_proxy
from tests.testbed.stores import StoreServer

pytestmark = pytest.mark.store


def leader(seq: int) -> Leader:
    return Leader(nonce=cas.new_nonce(), controller="c", seq=seq, ttl_s=15.0, url="")


@pytest.fixture
def proxy(minio: StoreServer) -> Iterator[FaultyProxy]:
    port = urlsplit(minio.endpoint).port
    assert port is not None
    with faulty_proxy(port) as running:
        yield running


@pytest.fixture
def through(minio: StoreServer, bucket: str, proxy: FaultyProxy) -> Iterator[S3Store]:
    location = replace(minio.location(bucket, "fleet/"), endpoint=proxy.endpoint)
    store = S3Store(location, credentials=minio.credentials, read_timeout_s=0.5, connect_timeout_s=0.5)
    yield store
    store.close()


def test_everything_passes_unchanged(through: S3Store, proxy: FaultyProxy, tmp_path: Path) -> None:
    probe(through)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    through.put_file("apps/big", source)
    through.get_file("apps/big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: through.create(f"specs/{n}.json", b"1"), range(50)))
    assert len(list(through.list("specs/"))) == 50


def test_requests_are_counted_by_method_and_key(through: S3Store, proxy: FaultyProxy) -> None:
    through.create("owners/a.json", b"1")
    through.create("specs/a.json", b"1")
    through.get("owners/a.json")
    through.head("owners/a.json")
    list(through.list("owners/"))
    through.delete(["owners/a.json"])
    assert proxy.count("PUT") == 2
    assert proxy.count("PUT", "fleet/owners/") == 1
    assert proxy.count("GET") == 1
    assert proxy.count("HEAD") == 1
    assert proxy.count("LIST", "fleet/owners/") == 1
    assert proxy.count("DELETE") == 1
    assert proxy.count() == 6
    assert proxy.count(since=time.monotonic()) == 0
    assert [one.status for one in proxy.seen] == [200] * 6


def test_a_refused_connection_is_ambiguous_until_it_heals(through: S3Store, proxy: FaultyProxy) -> None:
    through.create("a", b"1")
    proxy.fail(Mode.REFUSE)
    with pytest.raises(Ambiguous):
        through.get("a")
    proxy.heal()
    assert through.get("a").body == b"1"


def test_a_black_hole_accepts_and_never_answers(through: S3Store, proxy: FaultyProxy) -> None:
    through.create("a", b"1")
    proxy.fail(Mode.BLACKHOLE)
    with pytest.raises(Ambiguous):
        through.get("a")
    with pytest.raises(Ambiguous):
        through.create("b", b"1")
    proxy.heal()
    assert [entry.key for entry in through.list("")] == ["a"]


def test_an_unavailable_store_has_done_nothing(through: S3Store, proxy: FaultyProxy) -> None:
    proxy.fail(Mode.UNAVAILABLE, times=1)
    with pytest.raises(Ambiguous, match="503"):
        through.create("a", b"1")
    assert list(through.list("")) == []


def test_a_lost_reply_was_applied(through: S3Store, proxy: FaultyProxy) -> None:
    proxy.fail(Mode.LOST_REPLY, method="PUT", times=1)
    with pytest.raises(Ambiguous):
        through.create("a", b"1")
    assert through.get("a").body == b"1"


def test_a_delay_passes_in_the_end(through: S3Store, proxy: FaultyProxy) -> None:
    rule = proxy.fail(Mode.DELAY, delay_s=0.1)
    through.create("a", b"1")
    assert rule.hits == 1


def test_a_rule_takes_only_its_requests(through: S3Store, proxy: FaultyProxy) -> None:
    rule = proxy.fail(Mode.UNAVAILABLE, method="PUT", key="owners/")
    through.create("specs/a.json", b"1")
    with pytest.raises(Ambiguous):
        through.create("owners/a.json", b"1")
    list(through.list("owners/"))
    assert rule.hits == 1


@pytest.mark.parametrize("mode", [Mode.LOST_REPLY, Mode.UNAVAILABLE, Mode.BLACKHOLE])
def test_a_write_is_definite_through_every_fault(through: S3Store, proxy: FaultyProxy, mode: Mode) -> None:
    held = cas.write(through, "controllers/leader.json", leader(0), None, give_up=cas.backoff())
    for seq in range(1, 4):
        proxy.fail(mode, method="PUT", times=1)
        held = cas.write(through, "controllers/leader.json", leader(seq), held.etag, give_up=cas.backoff())
        assert cas.read(through, "controllers/leader.json", Leader) == held
