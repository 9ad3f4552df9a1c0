"""Litestream's objects by name: `<db>/<level, 4 hex>/<min txid>-<max txid>.ltx`. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from node.bucket.store import Entry

SNAPSHOT_LEVEL = 9
_NAME = re.compile(r"(?P<db>.+)/(?P<level>[0-9a-f]{4})/(?P<min>[0-9a-f]{16})-(?P<max>[0-9a-f]{16})\.ltx")
_LOCAL = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx")


@dataclass(frozen=True, slots=True, order=True)
class Ltx:
    """One object: the transactions `first` to `last` of a file, raw at level 0, compacted above, whole at level 9."""

    level: int
    first: int
    last: int
    key: str
    etag: str = ""
    size_bytes: int = 0
    modified: float = 0.0


def hex16(txid: int) -> str:
    """A txid as Litestream writes it."""
    return f"{txid:016x}"


def parse(entry: Entry, prefix: str) -> tuple[str, Ltx] | None:
    """(database, object) of a listed key under an epoch's prefix, None if it is not one of Litestream's."""
    match = _NAME.fullmatch(entry.key.removeprefix(prefix)) if entry.key.startswith(prefix) else None
    if match is None:
        return None
    ltx = Ltx(
        level=int(match["level"], 16),
        first=int(match["min"], 16),
        last=int(match["max"], 16),
        key=entry.key,
        etag=entry.etag,
        size_bytes=entry.size_bytes,
        modified=entry.modified,
    )
    return (match["db"], ltx) if ltx.first <= ltx.last else None


def by_database(entries: Iterable[Entry], prefix: str) -> dict[str, tuple[Ltx, ...]]:
    """An epoch's listing, per database file, in order of level and txid."""
    found: dict[str, list[Ltx]] = defaultdict(list)
    for entry in entries:
        if parsed := parse(entry, prefix):
            found[parsed[0]].append(parsed[1])
    return {db: tuple(sorted(objects)) for db, objects in found.items()}


def local_name(name: str) -> tuple[int, int] | None:
    """(first, last) of a file name in a local `ltx/<level>` folder, None if it is something else."""
    match = _LOCAL.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def plan(objects: Iterable[Ltx], txid: int) -> tuple[Ltx, ...]:
    """The objects that Litestream reads to restore exactly `txid`, in order; empty if there is no chain to it.

    The newest snapshot that is not past it, then at each step the object of any level that reaches furthest.
    """
    usable = [o for o in objects if o.last <= txid]
    snapshots = [o for o in usable if o.level == SNAPSHOT_LEVEL]
    chain = [max(snapshots, key=lambda o: o.last)] if snapshots else []
    reached = chain[0].last if chain else 0
    rest = [o for o in usable if o.level != SNAPSHOT_LEVEL]
    while reached < txid:
        nexts = [o for o in rest if o.first <= reached + 1 and o.last > reached]
        if not nexts:
            return ()
        step = max(nexts, key=lambda o: (o.last, -o.first, o.level))
        chain.append(step)
        reached = step.last
    return tuple(chain)


def newest(objects: Iterable[Ltx]) -> int:
    """The newest txid that can be restored, 0 for none: as far as a chain from the newest snapshot reaches."""
    known = tuple(objects)
    reached = max((o.last for o in known if o.level == SNAPSHOT_LEVEL), default=0)
    for o in sorted((o for o in known if o.level != SNAPSHOT_LEVEL), key=lambda o: (o.first, o.last)):
        if o.first > reached + 1:
            break
        reached = max(reached, o.last)
    return reached


def seen(objects: Iterable[Ltx]) -> int:
    """The newest txid that any object names, 0 for none. Past `newest` there is a gap."""
    return max((o.last for o in objects), default=0)
