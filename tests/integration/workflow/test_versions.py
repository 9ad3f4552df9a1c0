"""A history replayed on another version of Python asks for the same, to the byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.workflow.mortal import Forks, Server, new_seed
from tests.integration.workflow.rederive import lines
from tests.testbed.private import host_network
from tests.testbed.stores import cache

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "deploy/locks/worker.txt"


def others() -> list[str]:
    """Interpreters of other versions on this machine, from 3.11 on."""
    found = {}
    folders = [*map(str, Path.home().glob(".pyenv/versions/*/bin")), *os.environ["PATH"].split(":")]
    for minor in range(11, 20):
        program = shutil.which(f"python3.{minor}", path=":".join(folders))
        if program is not None and minor != sys.version_info.minor:
            found[minor] = program
    return list(found.values())


def libraries(python: str) -> Path:
    """The library's own dependencies for that interpreter, from the lock file."""
    folder = cache() / f"library-{Path(python).name}"
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [python, "-m", "pip", "-q", "install", "--disable-pip-version-check", "--target", str(folder)]
        subprocess.run(
            host_network([*pip, "--require-hashes", "--only-binary=:all:", "-r", LOCK]), check=True, timeout=200
        )
        stamp.write_bytes(LOCK.read_bytes())
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What a generated mix left."""
    seed = new_seed()
    print(f"SEED={seed}")
    forks = Forks()
    server = Server(tmp_path / "mix", ["tree"], forks, runs=8, seed=seed)
    server.live()
    forks.close()
    return server.path


def test_another_version_of_python_derives_the_same_bytes(log: Path) -> None:
    if not others():
        pytest.skip("no other Python from 3.11 on here")
    here = lines(log)
    assert len(here) > 20
    for python in others():
        folder = libraries(python)
        done = subprocess.run(
            [python, "-P", "-m", "tests.integration.workflow.rederive", log],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{folder}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, f"{python}: {done.stderr}"
        assert done.stdout.splitlines() == here, python
