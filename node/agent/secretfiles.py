"""A tenant's own secrets as tmpfs files of its worker alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def folder(runtime_dir: Path, tenant: str) -> Path:
    """Where a tenant's secrets are on this node: on tmpfs, gone with the boot."""
    return runtime_dir / "t" / tenant / "secrets"


def write(runtime_dir: Path, tenant: str, uid: int, values: Mapping[str, str]) -> Path | None:
    """Write the values as files that only the tenant's uid can read; None when it has none.

    Made beside and swapped in, so that a worker never sees half of them.
    """
    home = folder(runtime_dir, tenant)
    if not values:
        shutil.rmtree(home, ignore_errors=True)
        return None
    fresh = home.with_name("secrets.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    for name, value in values.items():
        fd = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        with os.fdopen(fd, "w") as f:
            f.write(value)
        os.chown(fresh / name, uid, uid)
    os.chown(fresh, uid, uid)
    fresh.chmod(0o500)
    shutil.rmtree(home, ignore_errors=True)
    fresh.rename(home)
    return home


def remove(runtime_dir: Path, tenant: str) -> None:
    """Forget a tenant's secrets."""
    shutil.rmtree(folder(runtime_dir, tenant), ignore_errors=True)
