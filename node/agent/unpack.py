"""An archive from a stranger, unpacked by root: nothing of it may land, point or lead outside its folder.

Python's own filter for this came in 3.11.4, after the 3.11 of Debian 12; so the rule is here, and it is stricter: no
member is written through a link, and a link may only climb over real folders of the archive.
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path, PurePosixPath

_LONGEST = 1024


class Escapes(Exception):
    """A member would land outside the folder, point out of it, or is no file, folder or link."""


def unpack(archive: Path, tree: Path, *, limit_bytes: int) -> None:
    """Unpack a gzipped tar into a new folder. Raises Escapes, tarfile.TarError, EOFError, or ValueError when it is
    more than `limit_bytes`."""
    tree.mkdir(parents=True, exist_ok=True)
    links: set[PurePosixPath] = set()
    left = limit_bytes
    with tarfile.open(archive, "r:gz") as tar:
        tar.extraction_filter = lambda member, _path: member  # this module is the filter
        for member in tar:
            left -= member.size
            if left < 0:
                raise ValueError(f"more than {limit_bytes} bytes")
            check(member, links)
            if member.issym():
                links.add(PurePosixPath(member.name))
            member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644  # no setuid, nothing unreadable
            tar.extract(member, tree, set_attrs=member.isreg())


def check(member: tarfile.TarInfo, links: set[PurePosixPath]) -> None:
    """The rule, for one member after those whose symbolic links are `links`. Raises Escapes with what is wrong."""
    name = _inside(member.name, member.name)
    if any(parent in links for parent in (name, *name.parents)):
        raise Escapes(f"{member.name} lies behind a link")
    if member.islnk():
        target = _inside(member.linkname, member.name)
        if any(parent in links for parent in (target, *target.parents)):
            raise Escapes(f"{member.name} is a link to what lies behind a link")
    elif member.issym():
        _climbs_within(member.linkname, depth=len(name.parts) - 1, name=member.name)
    elif not (member.isreg() or member.isdir()):
        raise Escapes(f"{member.name} is no file, folder or link")


def _inside(path: str, name: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or len(path) > _LONGEST:
        raise Escapes(f"{name} leaves the folder")
    return pure


def _climbs_within(target: str, *, depth: int, name: str) -> None:
    """`..` only in front, and no more of them than there are folders above: what follows a name may be a link."""
    pure = PurePosixPath(target)
    ups = 0
    while ups < len(pure.parts) and pure.parts[ups] == "..":
        ups += 1
    if pure.is_absolute() or not target or ups > depth or ".." in pure.parts[ups:] or len(target) > _LONGEST:
        raise Escapes(f"{name} links to {target}, out of the folder")
