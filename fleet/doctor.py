"""What is wrong with this machine or its bucket, each with the way to mend it.

The bucket, the clock, the token and the state folder are looked at here; the engine, images, quotas and disk by the
node's own check, as a process of its own: the controller's side knows no engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet.tokens import environment
from node.bucket import cas, keys
from node.bucket.errors import BadRecord, BucketError, Denied, NoBucket, Unsupported
from node.bucket.probe import probe
from node.bucket.records import Fleet, Leader
from node.bucket.s3 import Location, S3Store
from node.settings import Settings

CLOCK_LIMIT_S = 5.0
NODE_CHECK_S = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, whether it is well, what was seen, and what to do if not."""

    name: str
    ok: bool
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which one would mend them."""
    return [*_token(settings), *_bucket(settings), *_node(settings)]


def _token(settings: Settings) -> Iterator[Finding]:
    kept = settings.state_dir / "token"
    if settings.token or _is_there(kept):
        yield Finding("token", True, "set" if settings.token else f"kept in {kept}")
    else:
        yield Finding(
            "token", False, "FLEET_TOKEN is not set and none is kept",
            "run 'fleet serve' once, which makes one, or set FLEET_TOKEN to the fleet's",
        )  # fmt: skip


def _is_there(path: Path) -> bool:
    """Whether this user can see it: a state folder is for root alone."""
    return os.access(path, os.F_OK)


def _bucket(settings: Settings) -> Iterator[Finding]:
    if settings.bucket is None:
        yield Finding(
            "bucket", True, "none set: 'fleet serve' runs an embedded store, which does not survive this machine"
        )
        return
    try:
        location = Location.of(settings)
        store = S3Store(location)
        result = probe(store)
    except Denied as e:
        yield Finding(
            "bucket", False, f"{settings.bucket} refuses the credentials: {e}",
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile or role) and what they are permitted; "
            "deploy/production.md lists it",
        )  # fmt: skip
        return
    except NoBucket as e:
        yield Finding(
            "bucket", False, f"{settings.bucket} does not exist: {e}", "create the bucket, or mend FLEET_BUCKET"
        )
        return
    except Unsupported as e:
        yield Finding(
            "bucket", False, f"{settings.bucket} has no conditional writes that can be relied on: {e}",
            "use a store with If-None-Match and If-Match on PUT: AWS S3, MinIO of 2024-11 or later, SeaweedFS 4",
        )  # fmt: skip
        return
    except BucketError as e:
        yield Finding(
            "bucket", False, f"{settings.s3_endpoint or 'AWS S3'} is not reachable: {e}",
            "check FLEET_S3_ENDPOINT and the network from here to it",
        )  # fmt: skip
        return
    yield Finding(
        "bucket", True, f"{settings.bucket} answers, conditional writes hold ({result.seconds * 1000:.0f} ms)"
    )
    yield _sidecars(location)
    yield _clock(result.clock_offset_s)
    yield _fleet(settings, store)
    yield _controllers(store)


def _sidecars(location: Location) -> Finding:
    """Whether Litestream can use the credentials of this machine."""
    try:
        location.lasting_credentials()
    except Denied as e:
        return Finding("sidecars", False, str(e), "use a user's keys: deploy/production.md has the policy for it")
    return Finding(
        "sidecars", True, "they use this machine's credentials for the bucket, not limited to their tenant's prefix; "
        "deploy/production.md says what that means",
    )  # fmt: skip


def _clock(offset_s: float | None) -> Finding:
    if offset_s is None:
        return Finding("clock", True, "the store tells no time; not compared")
    if abs(offset_s) > CLOCK_LIMIT_S:
        way = "behind" if offset_s > 0 else "ahead of"
        return Finding(
            "clock", False, f"this machine is {abs(offset_s):.0f} s {way} the store",
            "run an NTP client (apt-get install chrony); S3 refuses requests that are minutes off",
        )  # fmt: skip
    return Finding("clock", True, f"within {max(1.0, abs(offset_s)):.0f} s of the store")


def _controllers(store: S3Store) -> Finding:
    """Which controller acts; none is no fault of this machine."""
    try:
        held = cas.read(store, keys.LEADER, Leader)
    except BucketError as e:
        return Finding("controllers", False, f"cannot read {keys.LEADER}: {e}", "use the version that wrote it")
    if held is None or held.record.released:
        return Finding("controllers", True, "none acts now: start one with 'fleet serve'")
    return Finding("controllers", True, f"{held.record.controller} acts, at {held.record.url}, if it still runs")


def _fleet(settings: Settings, store: S3Store) -> Finding:
    """Whether the state folder belongs to the fleet in the bucket."""
    try:
        held = cas.read(store, keys.FLEET, Fleet)
    except BadRecord as e:
        return Finding("fleet", False, str(e), "use the version of fleet that wrote it, or a newer one")
    except BucketError as e:
        return Finding("fleet", False, f"cannot read {keys.FLEET}: {e}", "try again")
    kept = settings.state_dir / "fleet.json"
    if not _is_there(kept):
        return Finding("fleet", True, "this state folder belongs to no fleet yet, as far as this user can see")
    try:
        mine = json.loads(kept.read_text())["id"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        return Finding(
            "fleet", False, f"{kept} cannot be read: {e}",
            "run this as root; if it is damaged: it says id (as the bucket's fleet.json does), node and machine",
        )  # fmt: skip
    if held is None or held.record.id != mine:
        there = "no fleet yet" if held is None else f"fleet {held.record.id}"
        return Finding(
            "fleet", False, f"the state folder {settings.state_dir} is of fleet {mine}, the bucket has {there}",
            "mend FLEET_BUCKET, or give this fleet a state folder of its own with FLEET_STATE_DIR",
        )  # fmt: skip
    return Finding("fleet", True, f"{mine}, mode {held.record.mode}")


def _node(settings: Settings) -> Iterator[Finding]:
    command = [sys.executable, "-m", "node.agent", "check", "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=NODE_CHECK_S, check=False, env=environment(settings)
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        yield Finding("node", False, f"the node's check did not end within {NODE_CHECK_S:g} s", "is the engine hung?")
        return
    except ValueError:
        yield Finding("node", False, f"the node's check failed: {done.stderr.strip()[-500:]}", "report this")
        return
    for f in found:
        yield Finding(f["name"], f["ok"], f["detail"], f.get("fix", ""))
