"""The index of a cold start: as it is stored and read; anything wrong with it is as if there were none."""

from __future__ import annotations

import gzip

import pytest

from fleet.index import decode, encode
from node.bucket import keys
from node.bucket.records import Owner, Spec
from tests.unit.controller.values import owner, spec

RECORDS = [(keys.spec("a"), "e1", spec("a")), (keys.owner("a"), "e2", owner("a"))]


def test_what_was_written_is_read():
    found = decode(encode(RECORDS))
    assert {key: etag for key, (etag, _) in found.items()} == {keys.spec("a"): "e1", keys.owner("a"): "e2"}
    assert Spec.decode(found[keys.spec("a")][1], key="k") == spec("a")
    assert Owner.decode(found[keys.owner("a")][1], key="k") == owner("a")


def test_the_same_records_are_the_same_bytes():
    assert encode(RECORDS) == encode(RECORDS)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not gzip", id="no gzip"),
        pytest.param(encode(RECORDS)[:-9], id="cut"),
        pytest.param(encode(RECORDS)[:40], id="cut early"),
        pytest.param(gzip.compress(b"{not json"), id="no JSON"),
        pytest.param(gzip.compress(b'["too", "short"]'), id="too short"),
        pytest.param(gzip.compress(b'["k", "e", 7]'), id="a number for a record"),
        pytest.param(gzip.compress(b"7"), id="a number"),
    ],
)
def test_what_is_no_index_is_empty(stored):
    assert decode(stored) == {}


def test_an_empty_fleet_has_an_empty_index():
    assert decode(encode([])) == {}
