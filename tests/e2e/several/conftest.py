"""A fleet of three machines and its store, shared by a module's tests and healed between them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.engine import Engine, NoEngine
from tests.testbed.fleet import Fleet, running_fleet
from tests.testbed.stores import minio_binary, running_minio


@pytest.fixture(scope="module")
def _three(engine: Engine, images: str) -> Iterator[Fleet]:
    binary = minio_binary()
    if binary is None:
        pytest.skip("no MinIO here: ./tests/run builds it")
    folder = Path(tempfile.mkdtemp(prefix="ft-", dir="/var/tmp"))
    try:
        with running_minio(folder / "store", binary) as minio, running_fleet(folder, engine, minio) as running:
            yield running
    except NoEngine as e:
        pytest.skip(str(e))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def fleet(_three: Fleet) -> Iterator[Fleet]:
    """Three nodes a, b and c, and a controller; whatever a test breaks is mended after it."""
    yield _three
    _three.heal()
