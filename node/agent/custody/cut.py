"""The cut: up to which transaction of each file a new epoch takes over its predecessor's data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from node.agent.custody import ltx
from node.agent.custody.ltx import Ltx

Objects = Mapping[str, tuple[Ltx, ...]]


@dataclass(frozen=True, slots=True)
class Whole:
    """Every file that the epoch holds can be restored: its newest txid. Files that never existed are not in it."""

    files: dict[str, int]


@dataclass(frozen=True, slots=True)
class Broken:
    """Objects are missing. `instead` is what can be restored of each file; a file that has nothing is not in it."""

    why: str
    instead: dict[str, int]


Cut = Whole | Broken


def cut(objects: Objects, databases: Iterable[str], proven: Mapping[str, str]) -> Cut:
    """Where to cut an epoch, from one listing of its prefix.

    `proven` are txids (hex) known to have been confirmed there: a file that is named must reach at least that far.
    A declared file that has no object and is not proven never existed.
    """
    files: dict[str, int] = {}
    troubles: list[str] = []
    for db in databases:
        known = objects.get(db, ())
        reach, seen, floor = ltx.newest(known), ltx.seen(known), int(proven.get(db, "0"), 16)
        if reach:
            files[db] = reach
        if reach < max(seen, floor):
            troubles.append(_trouble(db, reach, max(seen, floor)))
    return Broken("; ".join(troubles), files) if troubles else Whole(files)


def _trouble(db: str, reach: int, wanted: int) -> str:
    if not reach:
        return f"{db}: nothing of it can be restored, and transaction {wanted} was in the bucket"
    return f"{db}: objects are missing after transaction {reach}, and {wanted} was in the bucket"


def unreadable(objects: Iterable[Ltx], txid: int, bad: frozenset[str]) -> int:
    """The newest txid at most `txid` whose chain avoids the objects that could not be read; 0 for none."""
    good = [o for o in objects if o.key not in bad]
    for candidate in sorted({o.last for o in good if o.last <= txid}, reverse=True):
        chain = ltx.plan(objects, candidate)
        if chain and not any(o.key in bad for o in chain):
            return candidate
    return 0


def orphaned(objects: Objects, taken: Mapping[str, str]) -> dict[str, int]:
    """Transactions past the cut (hex, per file), which a zombie uploaded: how many of each file. Nobody merges them."""
    past = {db: ltx.seen(objects.get(db, ())) - int(txid, 16) for db, txid in taken.items()}
    return {db: n for db, n in past.items() if n > 0}
