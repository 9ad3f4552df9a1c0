"""Answers of the bucket that are lost, refused or late."""

from __future__ import annotations

import pytest

from fleet.bucket import Bucket
from node.bucket import keys
from node.bucket.errors import Ambiguous
from node.bucket.memory import MemoryStore
from node.bucket.records import Spec
from tests.integration.controller.conftest import SPEC


class LosingStore(MemoryStore):
    """Writes under `losing` are `applied`, or not, and get no answer; `late` are applied when `land` is called."""

    def __init__(self):
        super().__init__()
        self.losing = ""
        self.mode = "applied"
        self.late = []

    def _lose(self, key, write):
        if not self.losing or not key.startswith(self.losing):
            return write()
        if self.mode == "applied":
            write()
        elif self.mode == "late":
            self.late.append(write)
        raise Ambiguous(f"no answer for {key}", key=key)

    def create(self, key, body):
        return self._lose(key, lambda: MemoryStore.create(self, key, body))

    def replace(self, key, body, etag):
        return self._lose(key, lambda: MemoryStore.replace(self, key, body, etag))

    def land(self):
        self.losing = ""
        self.late[0]()


@pytest.fixture
def losing(bare, monkeypatch):
    monkeypatch.setattr(Bucket.__init__, "__kwdefaults__", {"threads": 8, "attempts": 2})
    bare.store = LosingStore()
    bare.join("n1")
    bare.start()
    bare.until(lambda: bare.client.get("/v1/nodes").json()["nodes"][0]["state"] == "ready")
    return bare


def test_a_write_whose_answer_is_lost_is_found_to_be_done(losing):
    losing.store.losing = "specs/"
    answer = losing.client.put("/v1/tenants/acme", json={"spec": SPEC})
    assert answer.status_code == 202
    losing.store.losing = ""
    losing.until(lambda: losing.get("acme")["state"] == "running")
    assert losing.get("acme")["generation"] == 1


def test_a_write_that_stays_in_doubt_is_said_to_be_and_repeating_is_safe(losing):
    losing.store.losing, losing.store.mode = "specs/", "lost"
    answer = losing.client.put("/v1/tenants/acme", json={"spec": SPEC})
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:fleet:outcome_unknown")
    assert answer.json()["retryable"] is True
    losing.store.losing = ""
    assert losing.up("acme").json()["generation"] == 1


def test_a_write_that_lands_later_is_acted_on(losing):
    losing.store.losing, losing.store.mode = "specs/", "late"
    assert losing.client.put("/v1/tenants/acme", json={"spec": SPEC}).status_code == 504
    losing.store.land()
    losing.until(lambda: losing.client.get("/v1/tenants/acme").status_code == 200)
    losing.until(lambda: losing.get("acme")["state"] == "running")


def test_another_controllers_change_is_seen_and_not_overwritten(losing):
    losing.up("acme")
    losing.until(lambda: Spec.decode(losing.store.get(keys.spec("acme")).body, key="").proven == 1)
    held = losing.store.get(keys.spec("acme"))
    theirs = Spec.decode(held.body, key="").model_copy(update={"generation": 2, "want": "down", "nonce": "theirs"})
    losing.store.replace(keys.spec("acme"), theirs.encode(), held.etag)
    answer = losing.client.put("/v1/tenants/acme", params={"wait": "60s"}, json={"spec": SPEC})
    assert answer.json()["generation"] == 3
    assert answer.json()["state"] == "running"


def test_a_record_that_cannot_be_read_is_named_and_stops_no_other(losing):
    losing.store.put(keys.spec("broken"), b'{"format": 99}')
    losing.until(lambda: "broken" in losing.client.get("/v1/events", params={"follow": "false"}).text)
    assert losing.up("acme").json()["state"] == "running"
    events = losing.client.get("/v1/events", params={"follow": "false", "tenant": "broken"}).text
    assert "upgrade before using this fleet" in events
