"""The text that events are recorded as."""

from __future__ import annotations

import json

import pytest

from node.workflow.values.events import LARGE_PAYLOAD_BYTES, PAYLOAD_KEY, Draft, Kind, payload_reference, with_payload
from node.workflow.values.payload import digest, encode


def test_a_small_payload_is_inline() -> None:
    body, apart = Draft(Kind.ACTIVITY_COMPLETED, {"id": 1}, '{"a":1}').row()
    assert (body, apart) == ('{"id":1,"result":{"a":1}}', None)


def test_a_payload_without_facts_is_an_object_too() -> None:
    assert Draft(Kind.COMPLETED, {}, "1").row() == ('{"result":1}', None)


def test_facts_alone_are_the_body() -> None:
    assert Draft(Kind.TIMER_FIRED, {"id": 1}).row() == ('{"id":1}', None)


def test_a_large_payload_is_apart_under_its_hash() -> None:
    text = encode("x" * LARGE_PAYLOAD_BYTES)
    body, apart = Draft(Kind.ACTIVITY_COMPLETED, {"id": 1}, text).row()
    assert apart == (digest(text), text)
    assert json.loads(body) == {"id": 1, "result_ref": digest(text)}


@pytest.mark.parametrize("kind", sorted(PAYLOAD_KEY))
def test_a_stored_body_with_its_payload_put_back_is_the_event(kind: str) -> None:
    draft = Draft(kind, {"id": 1}, encode("x" * 2000))
    stored = json.loads(draft.row()[0])
    assert payload_reference(kind, stored) is not None
    assert with_payload(kind, stored, "x" * 2000) == draft.event(1, 1).body


def test_only_kinds_with_a_payload_have_a_reference() -> None:
    assert payload_reference(Kind.TIMER_FIRED, {"id": 1, "result_ref": "no"}) is None
