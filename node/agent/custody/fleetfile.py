"""Whose bucket this is: `fleet.json` there, and what this machine's state folder remembers of it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from node.agent.custody.session import Mode
from node.bucket import cas, keys
from node.bucket.cas import Held
from node.bucket.errors import Conflict, Missing
from node.bucket.records import Fleet
from node.bucket.store import Store

REMEMBERED = "fleet.json"


class AnotherFleet(Exception):
    """State folder, bucket and node name do not belong together. Says what does not, and what to do."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a state folder keeps: the id of its fleet, its node's name in it, and its own random id."""

    id: str
    node: str
    machine: str


def recall(state_dir: Path) -> Remembered | None:
    """What this state folder remembers, None if it is new. Raises AnotherFleet if it is damaged."""
    path = state_dir / REMEMBERED
    try:
        raw = json.loads(path.read_text())
        return Remembered(str(raw["id"]), str(raw["node"]), str(raw["machine"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise AnotherFleet(
            f"{path} is damaged: it must say id (as the bucket's fleet.json does), node and machine"
        ) from None


def establish(store: Store, state_dir: Path, node: str, mode: Mode) -> tuple[Held[Fleet], Remembered]:
    """The bucket's fleet, created with `mode` if there is none; the state folder remembers it from then on.

    Raises AnotherFleet, and the store's errors (Ambiguous if the creation could not be made definite: call again).
    """
    known = recall(state_dir)
    if known is not None and known.node != node:
        raise AnotherFleet(
            f"{state_dir} holds the tenants of node {known.node}, and this one is called {node}: set FLEET_NODE="
            f"{known.node}, or use another FLEET_STATE_DIR"
        )
    held = cas.read(store, keys.FLEET, Fleet)
    if held is None and known is not None:
        raise AnotherFleet(
            f"the bucket has no fleet.json, but {state_dir} has served the fleet {known.id}: check FLEET_BUCKET and "
            "FLEET_S3_ENDPOINT; for a new fleet use another FLEET_STATE_DIR"
        )
    if held is None:
        held = _found(store, mode)
    if known is not None and known.id != held.record.id:
        raise AnotherFleet(
            f"the bucket belongs to the fleet {held.record.id}, but {state_dir} has served the fleet {known.id}: check "
            "FLEET_BUCKET, or use another FLEET_STATE_DIR"
        )
    if known is None:
        known = Remembered(held.record.id, node, secrets.token_hex(8))
        _remember(state_dir, known)
    return held, known


def share(store: Store, held: Held[Fleet]) -> Fleet:
    """The fleet in mode `shared`: a second machine is here. Machines take it up as they renew; until a lease says so,
    its machine runs on through an outage, and nobody may end its session for silence. Raises the store's errors.
    """
    if held.record.mode == "shared":
        return held.record
    wanted = held.record.model_copy(update={"mode": "shared", "nonce": cas.new_nonce()})
    return cas.write(store, keys.FLEET, wanted, held.etag, give_up=cas.backoff()).record


def _found(store: Store, mode: Mode) -> Held[Fleet]:
    fresh = Fleet(nonce=cas.new_nonce(), id=secrets.token_hex(8), mode=mode)
    try:
        return cas.write(store, keys.FLEET, fresh, None, give_up=cas.backoff())
    except Conflict:  # another machine was first
        held = cas.read(store, keys.FLEET, Fleet)
        if held is None:
            raise Missing(f"{keys.FLEET} was there and is gone", key=keys.FLEET) from None
        return held


def _remember(state_dir: Path, what: Remembered) -> None:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = state_dir / f"{REMEMBERED}.part"
    part.write_text(json.dumps(asdict(what)) + "\n")
    part.replace(state_dir / REMEMBERED)
