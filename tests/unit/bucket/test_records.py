"""Records: an unknown format is refused, an unknown field is kept, the same value is the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from node.bucket.errors import BadRecord
from node.bucket.records import (
    FORMAT,
    Capacity,
    Fleet,
    Leader,
    Lease,
    Lineage,
    Owner,
    Record,
    Restore,
    Secret,
    Spec,
)
from node.bucket.spec import TenantSpec

SPEC = TenantSpec(image="example/server:1", databases=("app.db",))
RECORDS: list[Record] = [
    Fleet(nonce="n", id="f1", mode="solo"),
    Lease(
        nonce="n",
        node="n1",
        session=1,
        seq=2,
        ttl_s=15.0,
        margin_s=3.0,
        url="http://127.0.0.1:7081",
        state="active",
        mode="solo",
        capacity=Capacity(memory_bytes=1, cpus=2.0, disk_bytes=3),
        labels={"zone": "a"},
    ),
    Owner(
        nonce="n",
        tenant="acme",
        epoch=7,
        node="n1",
        session=1,
        state="running",
        data_epoch=7,
        observed_generation=3,
        positions={"app.db": "00000000000000ff"},
    ),
    Lineage(
        nonce="n",
        tenant="acme",
        epoch=7,
        parent_epoch=6,
        parent_tenant="acme",
        cut={"app.db": "00000000000000ff"},
        node="n1",
        session=1,
        reason="failover",
        at=1.5,
    ),
    Spec(
        nonce="n",
        tenant="acme",
        generation=2,
        want="up",
        spec=SPEC,
        previous=SPEC,
        restore=Restore(id="r1", at=2.0),
        created_at=1.0,
        updated_at=2.0,
    ),
    Secret(nonce="n", tenant="acme", name="KEY", versions={"1": "token"}),
    Leader(nonce="n", controller="c", seq=1, ttl_s=15.0, url="http://127.0.0.1:7070"),
]
EACH = pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)


def changed(record: Record, **fields: Any) -> bytes:
    raw = json.loads(record.encode())
    raw.update(fields)
    return json.dumps(raw).encode()


@EACH
def test_a_record_is_read_back_as_it_was_written(record: Record) -> None:
    again = type(record).decode(record.encode(), key="k")
    assert again == record
    assert again.encode() == record.encode()
    assert json.loads(record.encode())["format"] == FORMAT


@EACH
@pytest.mark.parametrize("unknown", [0, 2, 99, "1", None])
def test_an_unknown_format_is_refused(record: Record, unknown: object) -> None:
    with pytest.raises(BadRecord, match=r"owners/acme.json has format"):
        type(record).decode(changed(record, format=unknown), key="owners/acme.json")


@EACH
def test_an_unknown_field_is_kept_and_written_back(record: Record) -> None:
    read = type(record).decode(changed(record, colour={"of": ["the", 1]}), key="k")
    rewritten = read.model_copy(update={"nonce": "another"})
    assert json.loads(rewritten.encode())["colour"] == {"of": ["the", 1]}


@EACH
def test_a_record_without_its_nonce_is_refused(record: Record) -> None:
    raw = json.loads(record.encode())
    del raw["nonce"]
    with pytest.raises(BadRecord, match="nonce"):
        type(record).decode(json.dumps(raw).encode(), key="k")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff\xfe"])
def test_what_is_not_a_record_is_refused_with_its_key(body: bytes) -> None:
    with pytest.raises(BadRecord, match=r"fleet\.json"):
        Fleet.decode(body, key="fleet.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", 0),
        ("epoch", "7"),
        ("epoch", 7.5),
        ("session", -1),
        ("state", "asleep"),
        ("data_epoch", None),
        ("positions", {"app.db": "12"}),
        ("node", 5),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRecord, match=f"owners/acme.json: field {field}"):
        Owner.decode(changed(RECORDS[2], **{field: value}), key="owners/acme.json")


def test_a_capacity_keeps_what_a_newer_version_says() -> None:
    raw = json.loads(RECORDS[1].encode())
    raw["capacity"]["gpus"] = 2
    read = Lease.decode(json.dumps(raw).encode(), key="k")
    assert json.loads(read.encode())["capacity"]["gpus"] == 2
