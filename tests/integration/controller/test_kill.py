"""`kill -9` of a controller at any moment: started again, it finishes or undoes what was under way. On MinIO."""

from __future__ import annotations

import random
import threading
import time

import httpx
import pytest

from node.bucket import keys
from node.bucket.records import Owner, Spec
from tests.integration.controller.processes import running
from tests.testbed.process import wait_until

pytestmark = pytest.mark.store

TENANTS = [f"t{i}" for i in range(6)]
KILLS = 6
SPEC = {"image": "server:1", "databases": ["app.db"]}


class Asker:
    """Asks one operation after the other of one tenant, repeating what got no answer; every call is safe to repeat."""

    def __init__(self, client, tenant, seed):
        self.client, self.tenant, self.random = client, tenant, random.Random(seed)
        self.want, self.asked = None, 0

    def step(self):
        want = self.random.choice(["up", "down"] if self.want is not None else ["up"])
        path = f"/v1/tenants/{self.tenant}"
        if want == "up":
            spec = {**SPEC, "env": {"N": str(self.random.randrange(5))}}
            self.repeat(lambda: self.client.put(path, json={"spec": spec}))
        else:
            self.repeat(lambda: self.client.post(f"{path}/stop"))
        self.want = want
        self.asked += 1

    def repeat(self, call):
        for _ in range(600):
            try:
                answer = call()
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code in (200, 202):
                return
            assert answer.json()["retryable"], answer.text
            time.sleep(0.05)
        raise AssertionError(f"{self.tenant} got no answer")


def test_operations_settle_whenever_the_controller_is_killed(minio, tmp_path):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with running(minio, tmp_path / "p") as both:
        askers = [Asker(both.client, tenant, dice.random()) for tenant in TENANTS]
        stop = threading.Event()

        def ask(asker):
            while not stop.is_set() and asker.asked < 200:
                asker.step()
                time.sleep(asker.random.random() * 0.1)

        threads = [threading.Thread(target=ask, args=(asker,)) for asker in askers]
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(dice.random() * 0.8)
            both.controller.kill()
            both.start_controller()
        stop.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        store = minio.store(both.bucket)
        for asker in askers:
            _settled(both, store, asker)


def _settled(both, store, asker):
    state = {"up": "running", "down": "released"}[asker.want]

    def there():
        shown = both.get(asker.tenant)
        return (shown["state"], shown["observed_generation"]) == (state, shown["generation"])

    wait_until(there, f"{asker.tenant} to be {state}: {both.get(asker.tenant)}", timeout_s=60)
    spec = Spec.decode(store.get(keys.spec(asker.tenant)).body, key="spec")
    owner = Owner.decode(store.get(keys.owner(asker.tenant)).body, key="owner")
    assert (spec.want, owner.state) == (asker.want, state)
    assert owner.epoch == 1


def test_a_purge_under_way_is_finished_by_the_next_controller(minio, tmp_path):
    with running(minio, tmp_path / "p") as both:
        both.client.put("/v1/tenants/acme", params={"wait": "60s"}, json={"spec": SPEC}).raise_for_status()
        assert both.client.delete("/v1/tenants/acme", params={"now": "true"}).status_code == 202
        both.controller.kill()
        both.start_controller()
        wait_until(lambda: both.client.get("/v1/tenants/acme").status_code == 404, "acme to be gone")


def test_the_controller_serves_health_while_the_bucket_is_away_and_says_why(own_minio, tmp_path):
    with running(own_minio, tmp_path / "p") as both:
        both.client.put("/v1/tenants/acme", params={"wait": "60s"}, json={"spec": SPEC}).raise_for_status()
        own_minio.stop()
        both.controller.kill()
        both.controller.start(lambda: _status(both, "/healthz") == 200)
        wait_until(lambda: _status(both, "/readyz") == 503, "the bucket to be missed")
        refused = both.client.put("/v1/tenants/acme", json={"spec": SPEC})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:fleet:unavailable")
        own_minio.start()
        wait_until(lambda: _status(both, "/readyz") == 200, "the bucket to be back")
        wait_until(lambda: both.get("acme")["state"] == "running", "acme to be known again")


def _status(both, path):
    try:
        return both.client.get(path).status_code
    except httpx.TransportError:
        return 0
