"""A hook between values and the file: encryption, say.

With a codec every value of the user's is encoded before it is written: inputs, arguments, results, payloads of signals,
errors, the state that a run shows, details of heartbeats. Names, ids, times, kinds, hashes of arguments, attributes and
keys of queues stay readable: they are what is searched by, and what a replay is checked against.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from node.workflow.values.events import PAYLOAD_KEY
from node.workflow.values.payload import digest

MARK: Final = "$sealed.node.workflow"
SEALED_KEYS: Final = frozenset({*PAYLOAD_KEY.values(), "error"})


class Codec(Protocol):
    """What encodes values. Both may raise; nothing is written then, and what can't be read blocks its run.

    Give each encoded value the number of its key: then keys can be changed while old values are still there.
    """

    def encode(self, data: bytes) -> bytes:
        """What is written instead of `data`; called on the writer's thread."""
        ...

    def decode(self, data: bytes) -> bytes:
        """What `encode` was given."""
        ...


class Unreadable(Exception):
    """A value can't be decoded; the text says why."""


def seal(codec: Codec | None, text: str) -> str:
    """JSON text as the file keeps it. What is sealed already stays as it is."""
    if codec is None or is_sealed(text):
        return text
    return json.dumps({MARK: base64.b64encode(codec.encode(text.encode())).decode()})


def is_sealed(text: str) -> bool:
    """Whether this JSON text was encoded by a codec."""
    return text.startswith(f'{{"{MARK}"')


def unseal(codec: Codec | None, text: str) -> str:
    """JSON text from the file. Raises Unreadable."""
    if not is_sealed(text):
        return text
    if codec is None:
        raise Unreadable("it was written with a codec, and none is given")
    try:
        return codec.decode(base64.b64decode(json.loads(text)[MARK], validate=True)).decode()
    except Exception as error:  # noqa: BLE001 - whatever a codec raises, the value can't be read
        raise Unreadable(f"{type(error).__name__}: {error}".removesuffix(": ")) from None


def readable(codec: Codec | None, text: str) -> str:
    """JSON text from the file; `null` when it can't be decoded."""
    try:
        return unseal(codec, text)
    except Unreadable:
        return "null"


def seal_body(codec: Codec | None, body: str, hashes: Mapping[str, str]) -> str:
    """The body of an event as the file keeps it. `hashes`: what the payloads it names are called once sealed."""
    if codec is None:
        return body
    facts = json.loads(body)
    for key in SEALED_KEYS & facts.keys():
        facts[key] = json.loads(seal(codec, _text(facts[key])))
    for key, hashed in facts.items():
        if key.endswith("_ref"):
            facts[key] = hashes.get(hashed, hashed)
    return _text(facts)


def seal_payload(codec: Codec | None, hashed: str, text: str) -> tuple[str, str]:
    """A payload that is kept apart, and its hash, as the file keeps them."""
    if codec is None:
        return hashed, text
    sealed = seal(codec, text)
    return digest(sealed), sealed


def unseal_facts(codec: Codec | None, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an event, payloads put back, with every sealed value opened. Raises Unreadable."""
    return {
        key: json.loads(unseal(codec, _text(value)))
        if key in SEALED_KEYS and isinstance(value, dict) and MARK in value
        else value
        for key, value in facts.items()
    }


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
