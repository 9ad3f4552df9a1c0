"""Archives that try to leave their folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from node.agent.unpack import Escapes, unpack

LIMIT = 1 << 20


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", body: bytes = b"", mode: int = 0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(body), mode
    info.uid, info.gid, info.uname = 4242, 4242, "daemon"
    return info, body


def packed(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for info, body in members:
            tar.addfile(info, io.BytesIO(body))
    return path


def sym(name: str, link: str):
    return member(name, tarfile.SYMTYPE, link)


def folder(name: str):
    return member(name, tarfile.DIRTYPE, mode=0o700)


@pytest.mark.parametrize(
    "members",
    [
        [member("/etc/x")],
        [member("../x")],
        [member("a/../../x")],
        [sym("x", "/etc/passwd")],
        [sym("x", "..")],
        [sym("x", "../..")],
        [sym("a/x", "../../y")],
        [sym("a/x", "b/../../..")],
        [folder("d"), sym("d/e", ".."), sym("d/f", "e/..")],
        [sym("out", "."), member("out/x")],
        [folder("d"), sym("l", "d"), member("l/x")],
        [sym("l", "d"), member("l")],
        [member("h", tarfile.LNKTYPE, "../x")],
        [member("h", tarfile.LNKTYPE, "/etc/passwd")],
        [sym("l", "d"), member("h", tarfile.LNKTYPE, "l/x")],
        [sym("l", "d"), member("h", tarfile.LNKTYPE, "l")],
        [member("dev", tarfile.CHRTYPE)],
        [member("dev", tarfile.BLKTYPE)],
        [member("fifo", tarfile.FIFOTYPE)],
        [sym("x", "")],
        [sym("x", "a/" * 600 + "b")],
    ],
)
def test_what_would_leave_the_folder_is_refused(tmp_path: Path, members: list) -> None:
    with pytest.raises(Escapes):
        unpack(packed(tmp_path, *members), tmp_path / "tree", limit_bytes=LIMIT)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar.gz", "tree"}


def test_files_folders_and_links_within_are_unpacked(tmp_path: Path) -> None:
    archive = packed(
        tmp_path,
        folder("d"),
        member("d/a.py", body=b"x = 1\n", mode=0o600),
        member("run", body=b"#!", mode=0o4700),
        sym("d/up", "../run"),
        sym("l", "d/a.py"),
        member("h", tarfile.LNKTYPE, "d/a.py"),
        member("deep/er/b.py", body=b"y"),
    )
    tree = tmp_path / "tree"
    unpack(archive, tree, limit_bytes=LIMIT)
    assert (tree / "l").read_bytes() == (tree / "h").read_bytes() == b"x = 1\n"
    assert (tree / "d/up").read_bytes() == b"#!"
    assert (tree / "deep/er/b.py").read_bytes() == b"y"
    assert (tree / "d/a.py").stat().st_mode & 0o7777 == 0o644
    assert (tree / "run").stat().st_mode & 0o7777 == 0o755
    assert (tree / "run").stat().st_uid == os.getuid()


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path, member("a", body=b"0" * 600_000), member("b", body=b"0" * 600_000))
    with pytest.raises(ValueError, match="more than"):
        unpack(archive, tmp_path / "tree", limit_bytes=LIMIT)
    assert not (tmp_path / "tree/b").exists()


def test_a_truncated_archive_is_an_error(tmp_path: Path) -> None:
    archive = packed(tmp_path, member("a", body=os.urandom(100_000)))
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises((tarfile.TarError, EOFError)):
        unpack(archive, tmp_path / "tree", limit_bytes=LIMIT)
