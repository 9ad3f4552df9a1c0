"""The app archives of a bucket: collected after the retention whatever fails meanwhile, and never one that is used."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress

import pytest

from fleet.bucket import Bucket
from fleet.errors import FleetError, Unavailable
from fleet.events import Events
from fleet.shelf import FIRST_S, RETRY_S, Shelf
from fleet.world import World
from node.bucket import cas, keys
from node.bucket.errors import BadRecord, BucketError
from node.bucket.memory import MemoryStore
from node.bucket.records import Fleet, Spec, Unused
from node.bucket.spec import TenantSpec
from tests.integration.controller.test_garbage import gc
from tests.testbed.faults import Fault, FaultyStore

DAY_S = 86400.0
BODY = b"an archive"
APP = hashlib.sha256(BODY).hexdigest()
USED = "f" * 64


class Bench:
    """A bucket with a clock, an app that a tenant uses and one that nobody does."""

    def __init__(self, tmp_path):
        self.store = MemoryStore()
        self.now = 1_000_000.0
        self.path = tmp_path / "app.tar.gz"
        self.path.write_bytes(BODY)
        self.store.put_file(keys.app(APP), self.path)
        self.store.put(keys.app(USED), b"used")
        self.refer("acme", USED)
        fleet = Fleet(nonce="n", id="f", mode="shared", retention_s=7 * DAY_S)
        self.store.create(keys.FLEET, fleet.encode())

    def refer(self, tenant, sha256):
        inner = TenantSpec(app=sha256, databases=("a.db",))
        record = Spec(
            nonce=cas.new_nonce(), tenant=tenant, generation=1, want="up", spec=inner, created_at=0, updated_at=0
        )
        self.store.put(keys.spec(tenant), record.encode())

    def shelf(self, store=None):
        events = Events()
        made = Shelf(
            World(clock=lambda: self.now), Bucket(store or self.store, threads=1, attempts=1), events, lambda: True
        )
        made.events = events
        return made

    def collect(self, store=None, *, dry_run=False):
        return asyncio.run(self.shelf(store).collect(dry_run=dry_run))

    def there(self):
        return {keys.app_of(e.key) for e in self.store.list(keys.APPS)}

    def noted(self):
        held = cas.read(self.store, keys.UNUSED, Unused)
        return held.record if held is not None else Unused(nonce="")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_an_unused_app_is_kept_for_the_retention_and_then_goes(bench):
    bench.collect()
    assert list(bench.noted().apps) == [APP]
    bench.now += 7 * DAY_S - 1
    bench.collect()
    assert bench.there() == {APP, USED}
    bench.now += 1
    bench.collect()
    assert bench.there() == {USED}
    assert bench.noted() == bench.noted().model_copy(update={"apps": {}, "going": ()})


def test_a_dry_run_writes_nothing(bench):
    (fate,) = bench.collect(dry_run=True)
    assert (fate.sha256, fate.goes, fate.why) == (APP, False, "young")
    assert bench.noted().apps == {}
    bench.collect()
    bench.now += 8 * DAY_S
    before = bench.noted()
    (fate,) = bench.collect(dry_run=True)
    assert (fate.goes, fate.why) == (True, "expired")
    assert bench.there() == {APP, USED}
    assert bench.noted() == before


def test_whoever_uses_one_that_is_noted_keeps_it(bench):
    bench.collect()
    bench.now += 8 * DAY_S
    assert asyncio.run(bench.shelf().use(APP)) == len(BODY)
    bench.collect()
    assert APP in bench.there()


def test_one_that_is_being_deleted_is_refused_until_it_is_gone_and_then_brought_in_again(bench):
    bench.store.create(keys.UNUSED, Unused(nonce="n", going=(APP,)).encode())
    for call in ("use", "put"):
        arguments = (APP,) if call == "use" else (APP, bench.path, len(BODY))
        with pytest.raises(Unavailable, match="is being deleted; repeat this in a minute"):
            asyncio.run(getattr(bench.shelf(), call)(*arguments))
    bench.collect()
    assert APP not in bench.there()
    assert asyncio.run(bench.shelf().use(APP)) is None
    assert asyncio.run(bench.shelf().put(APP, bench.path, len(BODY))) is False
    assert APP in bench.there()


def test_a_spec_that_cannot_be_read_keeps_everything(bench):
    bench.collect()
    bench.now += 8 * DAY_S
    bench.store.put(keys.spec("newer"), b'{"format": 99, "nonce": "n"}')
    with pytest.raises(BadRecord):
        bench.collect()
    assert bench.there() == {APP, USED}


def test_an_app_that_a_spec_refers_to_and_is_not_there_is_said(bench):
    bench.store.delete([keys.app(USED)])
    shelf = bench.shelf()
    asyncio.run(shelf.collect(dry_run=True))
    assert "of acme is not in the bucket" in shelf.events.recent(1)[0].message


@pytest.mark.parametrize("fault", [Fault.NOT_APPLIED, Fault.APPLIED, Fault.BUSY])
@pytest.mark.parametrize("after_s", [0.0, 8 * DAY_S])
def test_a_collection_may_end_at_any_call(bench, fault, after_s):
    """Each of its calls fails in turn, once for each pass, from the first pass to the one that finds no work."""
    if after_s:
        bench.collect()
        bench.now += after_s
    for nth in range(40):
        count = iter(range(1000))
        store = FaultyStore(bench.store, lambda *_, n=nth, c=count: fault if next(c) == n else Fault.NONE)
        with suppress(BucketError):
            bench.collect(store)
        assert USED in bench.there()
        if next(count) <= nth:
            break
    else:
        raise AssertionError("a pass without work makes too many calls")
    bench.collect()
    assert bench.there() == ({USED} if after_s else {APP, USED})
    assert bench.noted().going == ()


def test_an_up_at_any_moment_of_a_collection_has_its_app_or_is_told(bench, tmp_path):
    """At each call of a collection that deletes, another controller brings the app in and refers to it."""
    outcomes = set()
    for nth in range(40):
        one = Bench(tmp_path)
        one.collect()
        one.now += 8 * DAY_S
        store = Between(one.store, nth, lambda one=one: up(one))
        with suppress(BucketError):
            one.collect(store)
        if store.outcome is None:
            break
        outcomes.add(store.outcome)
        one.collect()
        one.now += 8 * DAY_S
        one.collect()
        refers = any(e.key == keys.spec("beta") for e in one.store.list(keys.SPECS))
        assert refers == (store.outcome == "up")
        assert (APP in one.there()) == refers, f"at call {nth}"
    else:
        raise AssertionError("a collection makes too many calls")
    assert outcomes == {"up", "refused"}


def test_a_record_that_another_controller_changes_meanwhile_is_judged_again(tmp_path):
    """At each call of a collection that deletes, another controller begins to use another app that was noted."""
    other = b"another"
    for nth in range(40):
        one = Bench(tmp_path)
        theirs = keys.app(hashlib.sha256(other).hexdigest())
        one.store.put(theirs, other)
        one.collect()
        one.now += 8 * DAY_S
        before = one.there()
        store = Between(one.store, nth, lambda one=one, theirs=theirs: use(one, keys.app_of(theirs)))
        shelf = one.shelf(store)
        fates = asyncio.run(shelf.collect(dry_run=False))
        gone = before - one.there()
        assert {f.sha256 for f in fates if f.goes} == gone >= {APP}, f"at call {nth}"
        assert {e.message.split()[2] for e in shelf.events.recent(10)} == {sha256[:12] for sha256 in gone}
        assert one.noted().going == ()
        assert asyncio.run(one.shelf().put(APP, one.path, len(BODY))) is False
        if store.outcome is None:
            break
    else:
        raise AssertionError("a collection makes too many calls")


def test_a_record_that_keeps_changing_is_said_and_looked_at_soon_again(bench, monkeypatch):
    bench.collect()
    bench.now += 8 * DAY_S
    with pytest.raises(Unavailable, match="keeps changing; try again"):
        bench.collect(Contended(bench.store))
    waits = []

    async def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            raise asyncio.CancelledError

    shelf = bench.shelf(Contended(bench.store))
    shelf._world.loaded = True
    monkeypatch.setattr("fleet.shelf.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(shelf.run())
    assert waits == [FIRST_S, RETRY_S]


class Contended:
    """A Store where another always writes the record of what is unused a moment earlier."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def replace(self, key, body, etag):
        if key == keys.UNUSED:
            self._inner.put(key, self._inner.get(key).body + b" ")
        return self._inner.replace(key, body, etag)


def use(one, sha256):
    """What another controller does for an `up` that refers to it."""
    try:
        return "used" if asyncio.run(one.shelf().use(sha256)) is not None else "gone"
    except Unavailable:
        return "refused"


def up(one):
    """What `fleet up --app` does, as another controller serves it."""
    try:
        asyncio.run(one.shelf().put(APP, one.path, len(BODY)))
        if asyncio.run(one.shelf().use(APP)) is None:
            return "refused"
    except FleetError:
        return "refused"
    one.refer("beta", APP)
    return "up"


class Between:
    """A Store that does something else before its nth call."""

    def __init__(self, inner, nth, what):
        self._inner, self._left, self._what = inner, nth, what
        self.outcome = None

    def __getattr__(self, name):
        call = getattr(self._inner, name)

        def counted(*args, **kwargs):
            if self._left == 0:
                self.outcome = self._what()
            self._left -= 1
            return call(*args, **kwargs)

        return counted


def test_the_api_tells_what_would_go(fleet):
    body = BODY * 3
    sha256 = hashlib.sha256(body).hexdigest()
    fleet.store.put(keys.app(sha256), body)
    answer = fleet.client.post("/v1/gc", params={"dry_run": "true"})
    assert answer.status_code == 200
    (item,) = answer.json()["items"]
    assert (item["kind"], item["name"], item["goes"]) == ("app", f"app {sha256[:12]}", False)
    assert fleet.client.post("/v1/gc").json()["dry_run"] is False
    assert cas.read(fleet.store, keys.UNUSED, Unused).record.apps.keys() == {sha256}


def test_the_command_line_collects_apps_where_no_tenant_is_left(fleet):
    fleet.store.put(keys.app(APP), BODY)
    done = gc(fleet, "--all")
    assert done.returncode == 0, done.stderr
    assert f"app {APP[:12]}" in done.stdout
    assert "stays" in done.stdout
    (view,) = json.loads(gc(fleet, "--all", "--dry-run", "-o", "json").stdout)
    assert (view["tenant"], view["nodes"][0]["items"][0]["reason"]) == (None, "young")
