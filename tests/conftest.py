"""Fixtures that every tier shares, and the rule about what cannot run: a skip with its reason, in CI a failure."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import docker
import pytest
from hypothesis import HealthCheck, settings

from node.bucket.s3 import S3Store
from tests.testbed.engine import Engine, NoEngine, running_engine
from tests.testbed.private import inside, orphans
from tests.testbed.stores import StoreServer, minio_binary, running_minio, running_seaweedfs

IN_CI = os.environ.get("CI") == "true"

# A busy machine is no finding. In CI the same cases come each time, so that what a change is red for is the change.
settings.register_profile(
    "tests", deadline=None, derandomize=IN_CI, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing may be left out: what skips there fails."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be left out with CI=true: {reason}"
    return report


@pytest.fixture(scope="module", autouse=True)
def _nothing_goes_on_behind_its_back() -> Iterator[None]:
    """What a module's tests lost sight of is ended after it, and named: it would slow down all that come later."""
    before = set(orphans()) if inside() else set()
    yield
    for pid, command in orphans().items() if inside() else ():
        if pid not in before:
            warnings.warn(f"left running, now ended: {command}", stacklevel=1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """The session's MinIO. Tests that stop or pause a store start one of their own: `own_minio`."""
    with running_minio(tmp_path_factory.mktemp("minio"), _minio_binary()) as server:
        yield server


@pytest.fixture
def own_minio(tmp_path: Path) -> Iterator[StoreServer]:
    """A MinIO of this test alone, to be stopped, paused and started again."""
    with running_minio(tmp_path / "store", _minio_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """The session's SeaweedFS."""
    with running_seaweedfs(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def bucket(minio: StoreServer) -> str:
    """A fresh bucket on the session's MinIO."""
    return minio.new_bucket()


@pytest.fixture
def store(minio: StoreServer, bucket: str) -> Iterator[S3Store]:
    """The product's adapter on that bucket, the fleet's prefix being `fleet/`."""
    adapter = minio.store(bucket, "fleet/")
    yield adapter
    adapter.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The run's own Docker engine, with no container in it."""
    try:
        with running_engine() as running:
            yield running
    except NoEngine as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def images(engine: Engine) -> str:
    """The product's images in that engine; what their build printed."""
    return engine.build_images()


@pytest.fixture
def docker_client(engine: Engine) -> Iterator[docker.DockerClient]:
    """A client of that engine."""
    client = engine.client()
    yield client
    client.close()


def _minio_binary() -> Path:
    binary = minio_binary()
    if binary is None:
        pytest.skip("no MinIO here: ./tests/run builds it")
    return binary
