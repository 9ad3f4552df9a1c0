"""What an agent remembers for the one that is started after it: assignments, on tmpfs, without their secrets."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from node.api import Assignment

log = structlog.get_logger()


def remember(runtime_dir: Path, want: Assignment) -> None:
    """Keep an assignment until the boot ends. Secrets are left out: they are files of their own."""
    home = runtime_dir / "t" / want.tenant
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "assignment.json"
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as f:
        f.write(want.model_dump_json(exclude={"secrets"}))
    fresh.replace(path)


def forget(runtime_dir: Path, tenant: str) -> None:
    """The tenant is not this node's any more."""
    (runtime_dir / "t" / tenant / "assignment.json").unlink(missing_ok=True)


def recall(runtime_dir: Path) -> dict[str, Assignment]:
    """Every assignment that is remembered, by tenant. One that can't be read is left out: it will be sent again."""
    found = {}
    for path in sorted((runtime_dir / "t").glob("*/assignment.json")):
        try:
            want = Assignment.model_validate_json(path.read_bytes())
        except (ValueError, OSError) as e:
            log.warning("assignment not readable", path=str(path), error=str(e))
            continue
        found[want.tenant] = want
    return found
