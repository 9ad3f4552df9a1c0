"""App archives that no spec refers to any more: which are kept for the retention, and which may go. Pure.

An archive is found by its content, so a later `up` may refer to one that was unused for days. Therefore it goes in two
writes of one record: first it is noted as unused, and only once that note has stood for the retention it is condemned,
under the ETag of the note. Whoever begins to use an archive takes the note away first. So one of the two writes fails
when both happen at once, and an archive that is in use is never condemned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from node.bucket.records import Spec, Unused

LEAST_S = 3600.0
"""Kept at least so long, whatever the retention: far longer than any request can be under way."""

Why = Literal["young", "clock", "expired", "condemned"]

WHY: Mapping[Why, str] = {
    "young": "no spec refers to it; it stays for the retention",
    "clock": "by this controller's clock it became unused in the future: it stays",
    "expired": "no spec refers to it for longer than the retention",
    "condemned": "it was condemned before, and its deletion was not confirmed",
}
"""Why an archive goes or stays, in words."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one archive that no spec refers to, and why."""

    sha256: str
    size_bytes: int
    goes: bool
    why: Why


def used_by(specs: Iterable[Spec]) -> Mapping[str, str]:
    """The archives that specs refer to, each with a tenant that does. What a roll-back would start counts; a tenant
    that is purged to the end has no use for any."""
    used = {}
    for spec in specs:
        if spec.want == "purged" and spec.purge_after is None:
            continue
        for one in (spec.spec, spec.previous):
            if one is not None and one.app is not None:
                used[one.app] = spec.tenant
    return used


def judge(
    present: Mapping[str, int], used: Mapping[str, str], noted: Unused, *, now: float, retention_s: float
) -> list[Fate]:
    """The fate of every archive that is unused, by hash. `present` are those in the bucket with their bytes."""
    kept_s = max(retention_s, LEAST_S)
    fates = []
    for sha256 in sorted(present.keys() - used.keys()):
        since = noted.apps.get(sha256, now)
        why: Why = "expired" if since + kept_s <= now else "young"
        if since > now:
            why = "clock"
        if sha256 in noted.going:
            why = "condemned"
        fates.append(Fate(sha256, present[sha256], why in ("expired", "condemned"), why))
    return fates


def noted_next(noted: Unused, fates: Iterable[Fate], *, now: float) -> Unused:
    """The record that says so: without what is used again, or is not there any more. No nonce yet."""
    all_ = tuple(fates)
    apps = {f.sha256: noted.apps.get(f.sha256, now) for f in all_ if not f.goes}
    going = tuple(f.sha256 for f in all_ if f.goes)
    return noted.model_copy(update={"apps": apps, "going": going, "nonce": ""})


def without(noted: Unused, *sha256: str) -> Unused:
    """The record without these archives. No nonce yet."""
    return noted.model_copy(
        update={
            "apps": {name: at for name, at in noted.apps.items() if name not in sha256},
            "going": tuple(name for name in noted.going if name not in sha256),
            "nonce": "",
        }
    )
