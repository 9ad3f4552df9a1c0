"""Litestream's configuration, for a sidecar and for a restore job. Pure; JSON is YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from node.agent.custody.values import Credentials, ReplicaTarget

FILE = "litestream.yml"
SOCKET = "ls.sock"
SOCKET_MODE = 0o600
NO_CHECKPOINTS = "min-checkpoint-page-count"


def data_path(db: str) -> str:
    """A database file inside the containers."""
    return f"/data/{db}"


def meta_name(db: str) -> str:
    """A file's own folder under `meta/`. `~` occurs in no database's name."""
    return "db/" + db.replace("/", "~")


def monitor_s(rpo_s: float) -> int:
    """How often Litestream looks for commits; uploads follow it, and cost requests."""
    return int(min(max(rpo_s / 2, 1), 60))


def sidecar(
    target: ReplicaTarget,
    paths: Mapping[str, str],
    credentials: Credentials,
    *,
    rpo_s: float,
    retention_s: float,
    checkpoints: bool = True,
) -> bytes:
    """The configuration of a sidecar. `paths` are each database's key prefix, relative to the fleet's.

    Without `checkpoints` what is committed travels and stays in the WAL: on a full disk there is no room to move it to,
    and Litestream confirms nothing where a checkpoint fails.
    """
    never = {} if checkpoints else {NO_CHECKPOINTS: 1 << 30, "checkpoint-interval": "8760h"}
    dbs = [
        {
            "path": data_path(db),
            "meta-path": f"/meta/{meta_name(db)}",
            "monitor-interval": f"{monitor_s(rpo_s)}s",
            "replica": _replica(target, path, credentials),
            **never,
        }
        for db, path in paths.items()
    ]
    # The oldest retained moment needs the snapshot before it: Litestream drops one as soon as it is too old itself.
    every_s = int(min(86400, retention_s))
    return _encode(
        {
            "socket": {"enabled": True, "path": f"/meta/{SOCKET}", "permissions": SOCKET_MODE},
            "l0-retention-check-interval": "1h",
            "levels": [{"interval": "5m"}, {"interval": "1h"}],
            "snapshot": {"interval": f"{every_s}s", "retention": f"{int(retention_s) + every_s}s"},
            "dbs": dbs,
        }
    )


def restore(target: ReplicaTarget, paths: Mapping[str, str], credentials: Credentials) -> bytes:
    """The configuration of a restore job: the same files, each at the prefix that it is read from."""
    return _encode(
        {"dbs": [{"path": data_path(db), "replica": _replica(target, path, credentials)} for db, path in paths.items()]}
    )


def restore_args(db: str, txid: str) -> tuple[str, ...]:
    """The command that restores one file to exactly `txid` and checks it. Never `-timestamp`: it does not see gaps."""
    return (
        *("restore", "-config", f"/etc/litestream/{FILE}", "-txid", txid, "-integrity-check", "full"),
        *("-o", data_path(db), data_path(db)),
    )


def _replica(target: ReplicaTarget, path: str, credentials: Credentials) -> dict[str, Any]:
    replica: dict[str, Any] = {
        "type": "s3",
        "bucket": target.bucket,
        "path": target.prefix + path,
        "region": target.region,
        "access-key-id": credentials.access_key,
        "secret-access-key": credentials.secret_key,
    }
    if target.endpoint is not None:
        replica |= {"endpoint": target.endpoint, "force-path-style": True}
    return replica


def _encode(document: dict[str, Any]) -> bytes:
    # Litestream expands $NAME in the text before it parses it; an escape is the same character afterwards.
    return json.dumps(document, indent=1).replace("$", "\\u0024").encode()
