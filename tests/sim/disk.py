"""A tenant's volume as it matters here: files of rows, Litestream's copies of them, the marker."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from node.agent.custody import ltx
from node.agent.custody.marker import Marker
from node.bucket.store import Entry

SKIPPED = b"[]"
"""A transaction that is somebody else's: it was fetched from the bucket, not made here."""


def encode(rows: Iterable[int]) -> bytes:
    """What one object holds: the first of a chain the whole file, a later one what was added."""
    return json.dumps(list(rows), separators=(",", ":")).encode()


def decode(body: bytes) -> list[int]:
    """The rows of an object."""
    return [int(row) for row in json.loads(body)]


def read_chain(objects: Iterable[ltx.Ltx], txid: int, body: dict[str, bytes]) -> list[int] | None:
    """The file at a transaction as Litestream restores it, None if there is no chain to it."""
    chain = ltx.plan(objects, txid)
    if not chain:
        return None
    rows: list[int] = []
    for o in chain:
        found = decode(body[o.key])
        rows = found if o.level == ltx.SNAPSHOT_LEVEL or o.first == 1 else rows + found
    return rows


def listed(entries: Iterable[Entry], prefix: str) -> dict[str, tuple[ltx.Ltx, ...]]:
    """An epoch's objects by file."""
    return ltx.by_database(entries, prefix)


@dataclass
class File:
    """`rows` is the database; `raw` Litestream's local transactions, 1 first; `copied` how many rows are in them.

    `safe_rows` and `safe_raw` are on the platter: a power cut may take what is behind them.
    """

    rows: list[int] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    copied: int = 0
    safe_rows: int = 0
    safe_raw: int = 0

    @property
    def txid(self) -> int:
        """The newest local transaction."""
        return len(self.raw)

    def copy_new(self) -> bool:
        """Litestream copies what was committed since into one transaction; whether there was anything."""
        if self.raw and self.copied == len(self.rows):
            return False
        self.raw.append(encode(self.rows if not self.raw else self.rows[self.copied :]))
        self.copied = len(self.rows)
        return True

    def flush(self) -> None:
        """Everything is on the platter."""
        self.safe_rows, self.safe_raw = len(self.rows), len(self.raw)

    def lose_tail(self, rng: random.Random) -> None:
        """A power cut: part of what was not flushed is gone, of the database and of the copies apart."""
        keep = rng.randint(min(self.safe_rows, len(self.rows)), len(self.rows))
        del self.rows[keep:]
        del self.raw[rng.randint(min(self.safe_raw, len(self.raw)), len(self.raw)) :]
        self.copied = min(self.copied, len(self.rows))

    @property
    def intact(self) -> bool:
        """Whether the database still holds all that was copied out of it."""
        return sum(len(decode(body)) for body in self.raw) <= len(self.rows)

    def forget_copies(self) -> None:
        """Litestream begins anew."""
        self.raw, self.copied, self.safe_raw = [], 0, 0

    def image(self) -> File:
        """A copy."""
        return replace(self, rows=list(self.rows), raw=list(self.raw))

    def etags(self, txid: int) -> frozenset[str]:
        """The ETags of a local transaction's object."""
        return frozenset({hashlib.md5(self.raw[txid - 1], usedforsecurity=False).hexdigest()})


@dataclass
class Volume:
    """One volume; `number` tells it from every other that ever was."""

    number: int
    tenant: str = ""
    files: dict[str, File] = field(default_factory=dict)
    marker: Marker | None = None

    def file(self, db: str) -> File:
        """A file, made empty if there is none."""
        return self.files.setdefault(db, File())

    @property
    def empty(self) -> bool:
        """Whether nothing was ever written."""
        return not any(f.rows for f in self.files.values())

    def image(self) -> Volume:
        """A copy, with the same number: it is the same volume as it was."""
        return replace(self, files={db: f.image() for db, f in self.files.items()})


@dataclass
class Disk:
    """A machine's disk: what a reboot leaves."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    aside: list[Volume] = field(default_factory=list)
    machine_id: str = ""
    fleet: str = ""

    def image(self) -> Disk:
        """A copy of the whole disk, as a backup or a snapshot of the machine makes it."""
        volumes = {tenant: vol.image() for tenant, vol in self.volumes.items()}
        return replace(self, volumes=volumes, aside=[vol.image() for vol in self.aside])
