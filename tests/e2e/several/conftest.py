"""A fleet of three machines and its store, shared by all tests in here and healed between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.testbed.engine import Engine, NoEngine
from tests.testbed.fleet import Fleet, own_folder, running_fleet
from tests.testbed.stores import minio_binary, running_minio


@pytest.fixture(scope="package")
def _three(engine: Engine, images: str) -> Iterator[Fleet]:
    binary = minio_binary()
    if binary is None:
        pytest.skip("no MinIO here: ./tests/run builds it")
    try:
        with (
            own_folder() as folder,
            running_minio(folder / "store", binary) as minio,
            running_fleet(folder, engine, minio) as running,
        ):
            yield running
    except NoEngine as e:
        pytest.skip(str(e))


@pytest.fixture
def fleet(_three: Fleet) -> Iterator[Fleet]:
    """Three nodes a, b and c, and a controller; whatever a test breaks is mended after it."""
    yield _three
    _three.heal()
