"""Where a volume stands against its epoch's prefix, file by file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from node.agent.custody import ltx
from node.bucket.store import Entry


class Position(Enum):
    """A volume's file compared with the bucket."""

    EQUAL = "equal"
    AHEAD = "ahead"
    BEHIND = "behind"
    DIVERGED = "diverged"
    UNCLEAR = "unclear"  # same name, an ETag that is no MD5 of ours: the bytes must be compared


def start_after(prefix: str, db: str, local: int) -> str:
    """What a LIST under `<prefix><db>/0000/` starts after, to show the bucket's object `local` and all later ones."""
    return f"{prefix}{db}/0000/{ltx.hex16(max(local - 1, 0))}"


def compare(entries: Iterable[Entry], prefix: str, db: str, local: int, etags: frozenset[str]) -> Position:
    """How `local`, the newest raw txid on the volume, stands to what the bucket lists from there on.

    `etags` are the ETags that the local object may have there (plain MD5, multipart).
    """
    raw = [o for found, o in filter(None, (ltx.parse(e, prefix) for e in entries)) if found == db and o.level == 0]
    if any(o.last > local for o in raw):
        return Position.BEHIND
    same = next((o for o in raw if o.first == local == o.last), None)
    if same is None:
        return Position.AHEAD
    return Position.EQUAL if same.etag in etags else Position.UNCLEAR


def not_behind(positions: Mapping[str, Position]) -> bool:
    """Whether the volume holds everything that the bucket holds, with the same history."""
    return all(p in (Position.EQUAL, Position.AHEAD) for p in positions.values())


def exactly(positions: Mapping[str, Position], local: Mapping[str, int], recorded: Mapping[str, str]) -> bool:
    """Whether the volume is at precisely the positions that a release recorded, and the bucket as well."""
    return (
        all(p is Position.EQUAL for p in positions.values())
        and set(local) == set(recorded)
        and all(local[db] == int(txid, 16) for db, txid in recorded.items())
    )
