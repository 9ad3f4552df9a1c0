"""A folder of code becomes an archive."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from fleet.cli import apppack
from fleet.cli.errors import USAGE, CliError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An app of three files."""
    root = tmp_path / "app"
    (root / "inner").mkdir(parents=True)
    (root / "app.py").write_text("import inner.code\n")
    (root / "inner/code.py").write_text("X = 1\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    return root


def members(folder: Path) -> dict[str, tarfile.TarInfo]:
    """What the archive of a folder holds."""
    with apppack.packed(folder) as app:
        assert hashlib.sha256(app.path.read_bytes()).hexdigest() == app.sha256
        assert app.size_bytes == app.path.stat().st_size
        with tarfile.open(app.path) as tar:
            found = {m.name: m for m in tar}
            assert app.files == len(found)
            return found


def test_the_same_files_give_the_same_archive(folder: Path, tmp_path: Path) -> None:
    with apppack.packed(folder) as app:
        first = app.sha256
    again = tmp_path / "elsewhere"
    (again / "inner").mkdir(parents=True)
    for name in ("run.sh", "inner/code.py", "app.py"):  # in another order, at other times, by another user's umask
        (again / name).write_bytes((folder / name).read_bytes())
        (again / name).chmod(0o700 if name == "run.sh" else 0o600)
        os.utime(again / name, (1, 1))
    with apppack.packed(again) as app:
        assert app.sha256 == first
    (again / "app.py").write_text("pass\n")
    with apppack.packed(again) as app:
        assert app.sha256 != first


def test_owner_time_and_odd_modes_do_not_travel(folder: Path) -> None:
    found = members(folder)
    assert set(found) == {"app.py", "inner/code.py", "run.sh"}
    for member in found.values():
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
    assert found["run.sh"].mode == 0o755
    assert found["app.py"].mode == 0o644


def test_what_tools_leave_behind_is_not_code(folder: Path) -> None:
    for name in ("__pycache__", ".git", ".venv", "inner/__pycache__"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    assert set(members(folder)) == {"app.py", "inner/code.py", "run.sh"}


def test_a_link_inside_the_folder_stays_a_link(folder: Path) -> None:
    (folder / "link.py").symlink_to("inner/code.py")
    (folder / "inner/up.py").symlink_to("../app.py")
    found = members(folder)
    assert found["link.py"].issym()
    assert found["link.py"].linkname == "inner/code.py"
    assert found["inner/up.py"].linkname == "../app.py"


def test_a_file_with_two_names_is_two_files(folder: Path) -> None:
    os.link(folder / "inner/code.py", folder / "zwei.py")
    found = members(folder)
    assert found["zwei.py"].isreg()
    assert found["zwei.py"].size == found["inner/code.py"].size == 6


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "inner/../../outside"])
def test_a_link_that_leaves_the_folder_is_refused(folder: Path, target: str) -> None:
    (folder / "bad").symlink_to(target)
    refused(folder, "bad")


def test_a_link_by_an_absolute_path_is_refused_even_into_the_folder(folder: Path) -> None:
    """Where the node unpacks it, that path is somewhere else."""
    (folder / "bad").symlink_to(folder / "app.py")
    refused(folder, "absolute")


@pytest.mark.parametrize("what", ["missing", "a file", "no app.py"])
def test_what_is_no_app_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    if what == "a file":
        path.write_text("")
    elif what == "no app.py":
        path.mkdir()
    refused(path, "thing")


def test_too_much_is_refused_also_when_it_is_spread_over_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apppack, "LIMIT_BYTES", 1 << 20)
    (folder / "a").write_bytes(bytes(700_000))
    members(folder)
    (folder / "inner/b").write_bytes(bytes(700_000))
    refused(folder, "larger than 1 MiB")


def test_a_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "inner/pipe")
    refused(folder, "inner/pipe")


def refused(folder: Path, says: str) -> None:
    """Packing says what is wrong."""
    with pytest.raises(CliError) as e, apppack.packed(folder):
        pass
    assert e.value.code == USAGE
    assert says in str(e.value)
