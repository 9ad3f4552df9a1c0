"""What a process occupies."""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Memory:
    """Bytes: what no other process shares with it, and all that is resident."""

    private_dirty: int
    rss: int

    @classmethod
    def of(cls, pid: int | str = "self") -> Self:
        """That of a process now. Raises OSError when it is gone."""
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        return cls(sizes["Private_Dirty"], sizes["Rss"])

    @classmethod
    def settled(cls) -> Self:
        """That of this process, once it has dropped what it no longer needs."""
        gc.collect()
        return cls.of()
