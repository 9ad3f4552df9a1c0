"""App archives: checked member by member. Code that a node unpacks must stay in its folder."""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from pathlib import Path

from fleet.errors import Invalid, TooLarge

MAX_BYTES = 256 << 20
# What the unpacked files may come to: a small archive must not fill a node's disk.
MAX_UNPACKED_BYTES = 4 * MAX_BYTES
MAX_MEMBERS = 100_000


def check(path: Path) -> None:
    """Read a gzipped tar through. Raises Invalid naming the member that is not allowed, TooLarge if it unpacks to more
    than fits. Allowed are files, folders, and links that stay inside."""
    total = 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise TooLarge(f"the app has more than {MAX_MEMBERS} files")
                _check_member(member)
                total += member.size
                if total > MAX_UNPACKED_BYTES:
                    raise TooLarge(f"the app unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as e:
        raise Invalid(f"the app is not a gzipped tar archive: {e}") from None


def _check_member(member: tarfile.TarInfo) -> None:
    if not _inside(member.name):
        raise Invalid(f"the app's member {member.name!r} leaves its folder")
    if member.issym():
        if member.linkname.startswith("/") or not _inside(
            posixpath.join(posixpath.dirname(member.name), member.linkname)
        ):
            raise Invalid(f"the app's link {member.name!r} leads out of its folder, to {member.linkname!r}")
    elif member.islnk():
        if not _inside(member.linkname):
            raise Invalid(f"the app's link {member.name!r} leads out of its folder, to {member.linkname!r}")
    elif not (member.isfile() or member.isdir()):
        raise Invalid(f"the app's member {member.name!r} is neither a file, a folder nor a link")


def _inside(name: str) -> bool:
    normal = posixpath.normpath(name)
    return not name.startswith("/") and "\0" not in name and normal != ".." and not normal.startswith("../")
