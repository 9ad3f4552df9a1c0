"""One uid per tenant on this machine: handed out once, upwards, and kept; two tenants never share one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

from node.agent.ports import RuntimeFailed

FIRST = 200_000
LAST = 2_000_000_000


def allot(known: dict[str, int], tenant: str) -> dict[str, int]:
    """The registry with this tenant in it. A uid that was ever given is not given again: a volume that was set aside
    may still carry it."""
    if tenant in known:
        return known
    return {**known, tenant: max([FIRST - 1, *known.values()]) + 1}


class Uids:
    """The registry `uids.json` in the state folder; root's, and safe from many threads and processes."""

    def __init__(self, state: Path) -> None:
        self._path = state / "uids.json"

    def of(self, tenant: str) -> int:
        """The tenant's uid (and gid). Raises RuntimeFailed (bad_state, disk_full) rather than give one out twice."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                known = self._read()
                after = allot(known, tenant)
                if after is not known:
                    self._write(after)
        except OSError as e:
            reason = "disk_full" if e.errno in (errno.ENOSPC, errno.EDQUOT) else "bad_state"
            text = f"the uid of {tenant} cannot be noted in {self._path}: {e.strerror}"
            raise RuntimeFailed(text, reason=reason, retryable=True) from e
        if after[tenant] > LAST:
            raise RuntimeFailed(f"{self._path}: no uid is left for {tenant}", reason="bad_state", retryable=False)
        return after[tenant]

    def _read(self) -> dict[str, int]:
        try:
            known = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as e:
            raise self._broken(str(e)) from e
        sound = isinstance(known, dict) and all(isinstance(uid, int) and uid >= FIRST for uid in known.values())
        if not sound or len(set(known.values())) != len(known):
            raise self._broken("not one uid for each tenant")
        return {str(tenant): int(uid) for tenant, uid in known.items()}

    def _write(self, known: dict[str, int]) -> None:
        partial = self._path.with_suffix(".new")
        with partial.open("w") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(known, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._path)

    def _broken(self, why: str) -> RuntimeFailed:
        text = (
            f"{self._path} is damaged ({why}); rebuild it from the owners of the folders {self._path.parent}/t/*/meta"
        )
        return RuntimeFailed(text, reason="bad_state", retryable=False)
