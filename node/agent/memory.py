"""What an agent remembers for the one that is started after it: assignments, on tmpfs, without their secrets."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from node.api import Assignment

log = structlog.get_logger()


def remember(runtime_dir: Path, want: Assignment) -> None:
    """Keep an assignment until the boot ends. Secrets are left out: they are files of their own."""
    _write(runtime_dir / "t" / want.tenant / "assignment.json", want.model_dump_json(exclude={"secrets"}))


def remember_worker(runtime_dir: Path, tenant: str, fingerprint: str) -> None:
    """Keep what the worker that is about to start was made from: an assignment may be newer than what runs."""
    _write(runtime_dir / "t" / tenant / "worker", fingerprint)


def worker(runtime_dir: Path, tenant: str) -> str:
    """What the last worker was made from, empty if that is not known."""
    try:
        return (runtime_dir / "t" / tenant / "worker").read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w") as f:
        f.write(text)
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
