"""Configuration on tmpfs: folders of mode 0500 that belong to a tenant's uid, with one file of mode 0400."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from node.agent.custody.config import FILE


def write_config(folder: Path, uid: int, content: bytes) -> None:
    """Make a folder that holds Litestream's configuration, with its credentials; an earlier one is replaced."""
    parent = folder.parent
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    fd = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as f:
        f.write(content)
    os.chown(folder / FILE, uid, uid)
    os.chown(folder, uid, uid)
    folder.chmod(0o500)
