"""A fleet of one machine, on this run's engine and a real MinIO."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box, running
from tests.testbed.engine import Engine
from tests.testbed.stores import StoreServer


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path on a real disk: sockets and mounts live under it."""
    path = Path(tempfile.mkdtemp(prefix="fleet-e2e-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def box(folder: Path, engine: Engine, images: str, minio: StoreServer) -> Iterator[Box]:
    """A running fleet that a module's tests share, each with tenants of its own."""
    with running(Box(folder, engine.host, minio.environment(minio.new_bucket(), "fleet"))) as started:
        yield started


@pytest.fixture
def own_box(engine: Engine, images: str, minio: StoreServer) -> Iterator[Box]:
    """A running fleet of one test alone."""
    path = Path(tempfile.mkdtemp(prefix="fleet-e2e-", dir="/var/tmp"))
    try:
        with running(Box(path, engine.host, minio.environment(minio.new_bucket(), "fleet"))) as started:
            yield started
    finally:
        shutil.rmtree(path, ignore_errors=True)
