"""An app's `requirements.lock` travels resolved: real pip, from a folder of wheels, with no index to ask."""

from __future__ import annotations

import base64
import hashlib
import tarfile
import zipfile
from pathlib import Path

import pytest

from fleet.cli.apppack import packed
from fleet.cli.errors import USAGE, CliError

NAME = "tinydep-1.0"
FILES = {
    "tinydep/__init__.py": "ANSWER = 42\n",
    f"{NAME}.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinydep\nVersion: 1.0\n",
    f"{NAME}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def wheel(folder: Path) -> str:
    """A wheel of one module, in this folder; answers its SHA-256."""
    record = f"{NAME}.dist-info/RECORD"
    path = folder / f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        lines = []
        for name, text in FILES.items():
            out.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text)}")
        out.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app that locks that wheel; pip finds it in a folder, and asks nobody."""
    wheels, folder = tmp_path / "wheels", tmp_path / "app"
    wheels.mkdir()
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    (folder / "app.py").write_text("import tinydep\n")
    (folder / "requirements.lock").write_text(f"tinydep==1.0 --hash=sha256:{wheel(wheels)}\n")
    return folder


def test_what_is_locked_is_in_the_archive_and_the_same_each_time(app: Path) -> None:
    with packed(app) as first, tarfile.open(first.path) as tar:
        names = set(tar.getnames())
        found = tar.extractfile("vendor/tinydep/__init__.py")
        assert found is not None
        assert found.read() == b"ANSWER = 42\n"
    assert {"app.py", "requirements.lock", f"vendor/{NAME}.dist-info/METADATA"} <= names
    with packed(app) as second:
        assert second.sha256 == first.sha256


def test_a_vendor_folder_that_lies_there_already_gives_way_to_what_is_locked(app: Path) -> None:
    (app / "vendor/tinydep").mkdir(parents=True)
    (app / "vendor/tinydep/__init__.py").write_text("ANSWER = 41\n")
    with packed(app) as made, tarfile.open(made.path) as tar:
        found = tar.extractfile("vendor/tinydep/__init__.py")
        assert found is not None
        assert found.read() == b"ANSWER = 42\n"
        assert len(tar.getnames()) == len(set(tar.getnames()))


@pytest.mark.parametrize(
    "lock",
    ["tinydep==1.0\n", f"tinydep==1.0 --hash=sha256:{'0' * 64}\n", f"no-such==1.0 --hash=sha256:{'0' * 64}\n"],
)
def test_a_lock_without_hashes_or_with_others_or_of_what_is_nowhere_is_refused(app: Path, lock: str) -> None:
    (app / "requirements.lock").write_text(lock)
    with pytest.raises(CliError, match=r"requirements\.lock cannot be resolved") as e, packed(app):
        pass
    assert e.value.code == USAGE
