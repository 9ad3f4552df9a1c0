"""The bucket gone, silent, back again, and with objects that are broken: what was acknowledged is never lost, and what
cannot be told apart from loss is said."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.box import Box, running
from tests.e2e.ledger import FILE, Asking, Ledger
from tests.testbed.engine import Engine
from tests.testbed.faulty import FaultyProxy, Mode, faulty_proxy
from tests.testbed.stores import StoreServer

# Longer than a lease lasts: who could lose its tenants to another node would have frozen them by then.
OUTAGE_S = 16.0


@dataclass(frozen=True)
class Weak:
    """A fleet and what stands between it and its bucket."""

    box: Box
    proxy: FaultyProxy
    server: StoreServer
    bucket: str

    def keys(self, prefix: str) -> list[str]:
        """Whole keys under a prefix of the fleet's."""
        return [f"fleet/{key}" for key in self.box.objects(prefix)]

    def damage(self, key: str) -> None:
        """Turn over a byte in the middle of an object."""
        found = self.server.client.get_object(Bucket=self.bucket, Key=key)
        body = bytearray(found["Body"].read())
        body[len(body) // 2] ^= 0xFF
        self.server.client.put_object(Bucket=self.bucket, Key=key, Body=bytes(body), Metadata=found["Metadata"])

    def delete(self, *keys: str) -> None:
        """Objects gone behind everybody's back."""
        for key in keys:
            self.server.client.delete_object(Bucket=self.bucket, Key=key)


@pytest.fixture(scope="module")
def started(folder: Path, engine: Engine, images: str, minio: StoreServer) -> Iterator[Weak]:
    bucket = minio.new_bucket()
    with faulty_proxy(urlsplit(minio.endpoint).port or 0) as proxy:
        environment = {**minio.environment(bucket, "fleet"), "FLEET_S3_ENDPOINT": proxy.endpoint}
        with running(Box(folder, engine.host, environment)) as box:
            yield Weak(box, proxy, minio, bucket)
            proxy.heal()


@pytest.fixture
def weak(started: Weak) -> Iterator[Weak]:
    """That fleet, its bucket whole before and after the test."""
    yield started
    started.proxy.heal()
    started.box.eventually(started.box.ready, "a ready fleet")


def test_a_bucket_that_is_gone_for_long_stops_acknowledging_and_nothing_else(weak: Weak) -> None:
    ledger = Ledger(weak.box, "outage")
    ledger.up()
    ledger.write(5)
    weak.proxy.fail(Mode.REFUSE)
    until = time.monotonic() + OUTAGE_S
    with Asking(ledger) as asking:
        assert ledger.post(timeout_s=5) != 200
        time.sleep(max(0.0, until - time.monotonic()))
        assert weak.box.status("outage")["state"] == "running"
        asking.more()
    assert set(asking.statuses) == {200}
    weak.proxy.heal()
    ledger.write(3)
    ledger.check_bucket()
    weak.box.fleet("down", "outage")


def test_a_bucket_that_never_answers_is_waited_for(weak: Weak) -> None:
    ledger = Ledger(weak.box, "silence")
    ledger.up()
    ledger.write(5)
    weak.proxy.fail(Mode.BLACKHOLE)
    with Asking(ledger) as asking:
        assert ledger.post(timeout_s=5) != 200
        asking.more()
    assert set(asking.statuses) == {200}
    weak.proxy.heal()
    ledger.write(3)
    ledger.check_bucket()
    weak.box.fleet("down", "silence")


def test_down_drops_nothing_that_the_bucket_does_not_have_and_says_so(weak: Weak) -> None:
    ledger = Ledger(weak.box, "unconfirmed")
    ledger.up()
    ledger.write(5)
    weak.proxy.fail(Mode.UNAVAILABLE, key="data/")
    assert ledger.post(durable="no") == 202
    done = weak.box.fleet("down", "unconfirmed", "--timeout", "12s", check=False)
    assert done.code == 4, done
    assert "not all in the bucket" in done.err
    view = weak.box.status("unconfirmed")
    assert (view["state"], view["reason"]) == ("stopping", "unconfirmed")
    assert weak.box.is_running("unconfirmed", "sidecar")
    weak.proxy.heal()
    weak.box.wait_state("unconfirmed", "released")
    ledger.lose_volume()
    weak.box.fleet("up", "unconfirmed")
    ledger.check()
    assert len(ledger.ids()) == 6, "what was written before down is there too, though nobody was told"
    weak.box.fleet("down", "unconfirmed")


def test_up_without_a_bucket_says_that_it_is_the_bucket(weak: Weak) -> None:
    ledger = Ledger(weak.box, "early")
    ledger.up()
    weak.box.fleet("down", "early")
    weak.proxy.fail(Mode.REFUSE)
    done = weak.box.fleet("up", "early", check=False)
    assert done.code in (4, 6), done  # whether it was written may have to be called unknown
    assert "bucket" in done.err
    weak.proxy.heal()
    weak.box.fleet("up", "early")
    ledger.write(1)
    weak.box.fleet("down", "early")


def broken(weak: Weak, name: str) -> tuple[Ledger, list[str]]:
    """A tenant with rows that is down, its disk lost; and its raw objects, the oldest first."""
    ledger = Ledger(weak.box, name)
    ledger.up()
    ledger.write(8)
    weak.box.fleet("down", name)
    ledger.lose_volume()
    keys = sorted(weak.keys(f"data/{name}/e00000001/{FILE}/"))
    return ledger, keys


def stays_down(weak: Weak, name: str, state: str, says: str) -> None:
    """It says what is wrong and what to do, also when it is asked again; nothing of it runs."""
    for _ in range(2):
        done = weak.box.fleet("up", name, check=False)
        assert done.code == 1, done
        assert says in done.err
        assert f"fleet restore {name} --accept-data-loss" in done.err
        assert weak.box.status(name)["state"] == state
    assert not weak.box.is_running(name)
    assert weak.box.tenant(name, "GET", "/rows")[0] == 503


def newest(keys: list[str]) -> list[str]:
    """Every object that ends with the newest transaction."""
    last = max(key.rpartition("-")[2] for key in keys)
    return [key for key in keys if key.endswith(last)]


def test_a_damaged_object_is_found_and_what_can_be_had_instead_is_offered(weak: Weak) -> None:
    ledger, keys = broken(weak, "flipped")
    for key in newest(keys):
        weak.damage(key)
    stays_down(weak, "flipped", "damaged", f"{FILE} up to transaction")
    view = weak.box.json("restore", "flipped", "--accept-data-loss", "-y")
    assert view["state"] == "running"
    found = ledger.ids()
    assert found == ledger.acknowledged[: len(found)]
    assert 0 < len(found) < len(ledger.acknowledged)
    weak.box.fleet("down", "flipped")


def test_a_missing_object_is_found_and_what_can_be_had_instead_is_offered(weak: Weak) -> None:
    ledger, keys = broken(weak, "gap")
    raw = [key for key in keys if "/0000/" in key]
    gap = raw[-3].rpartition("/")[2]
    # Nor what a compaction made of it, if one came by while the rows were written.
    weak.delete(*(key for key in keys if key.endswith(gap) or re.search("/000[1-8]/", key)))
    stays_down(weak, "gap", "damaged", f"{FILE} up to transaction")
    weak.box.fleet("restore", "gap", "--accept-data-loss", "-y")
    found = ledger.ids()
    assert found == ledger.acknowledged[: len(found)]
    assert 0 < len(found) < len(ledger.acknowledged)
    weak.box.fleet("down", "gap")


def test_data_that_is_gone_is_lost_and_never_taken_for_a_new_tenant(weak: Weak) -> None:
    ledger, _ = broken(weak, "emptied")
    weak.delete(*weak.keys("data/emptied/"))
    stays_down(weak, "emptied", "lost", "none of its data can be restored")
    weak.box.fleet("restore", "emptied", "--accept-data-loss", "-y")
    assert ledger.ids() == []
    weak.box.fleet("down", "emptied")
