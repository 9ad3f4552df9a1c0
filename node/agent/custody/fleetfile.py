"""Whose bucket this is: `fleet.json` there, and the id that this machine's state folder remembers."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from node.agent.custody.session import Mode
from node.bucket import cas, keys
from node.bucket.errors import Conflict
from node.bucket.records import Fleet
from node.bucket.store import Store

REMEMBERED = "fleet.json"


class AnotherFleet(Exception):
    """The state folder belongs to one fleet and the bucket to another (or to none any more). Says what to do."""


def remembered(state_dir: Path) -> str | None:
    """The id of the fleet that this state folder has served, None if it is new. Raises AnotherFleet if damaged."""
    path = state_dir / REMEMBERED
    try:
        return str(json.loads(path.read_text())["id"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise AnotherFleet(f'{path} is damaged: it must say {{"id": …}} as the bucket\'s fleet.json does') from None


def establish(store: Store, state_dir: Path, mode: Mode) -> Fleet:
    """The bucket's fleet, created with `mode` if there is none; its id is remembered in the state folder.

    Raises AnotherFleet, and the store's errors (Ambiguous if the creation could not be made definite: call again).
    """
    known = remembered(state_dir)
    held = cas.read(store, keys.FLEET, Fleet)
    if held is None and known is not None:
        raise AnotherFleet(
            f"the bucket has no fleet.json, but {state_dir} has served the fleet {known}: check FLEET_BUCKET and "
            "FLEET_S3_ENDPOINT; for a new fleet use another FLEET_STATE_DIR"
        )
    if held is None:
        fresh = Fleet(nonce=cas.new_nonce(), id=secrets.token_hex(8), mode=mode)
        try:
            held = cas.write(store, keys.FLEET, fresh, None, give_up=cas.backoff())
        except Conflict:  # another machine was first
            held = cas.read(store, keys.FLEET, Fleet)
            if held is None:
                raise
    fleet = held.record
    if known is not None and known != fleet.id:
        raise AnotherFleet(
            f"the bucket belongs to the fleet {fleet.id}, but {state_dir} has served the fleet {known}: check "
            "FLEET_BUCKET, or use another FLEET_STATE_DIR"
        )
    if known is None:
        _remember(state_dir, fleet.id)
    return fleet


def _remember(state_dir: Path, fleet_id: str) -> None:
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = state_dir / f"{REMEMBERED}.part"
    part.write_text(json.dumps({"id": fleet_id}) + "\n")
    part.replace(state_dir / REMEMBERED)
