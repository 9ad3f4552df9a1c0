"""What the images hold, what they do not, and that a second build does nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import docker
import pytest

from tests.testbed.engine import Engine

pytestmark = pytest.mark.engine

BUILD = Path(__file__).parents[3] / "images" / "build"
LIMITS_MB = {"worker": 130, "sidecar": 60, "gateway": 110}


def test_the_images_are_small_and_their_user_is_not_root(images: str, docker_client: docker.DockerClient) -> None:
    for name, limit in LIMITS_MB.items():
        found = docker_client.images.get(f"fleet/{name}:latest")
        assert found.attrs["Size"] < limit * 1e6, images
        assert found.attrs["Config"]["User"] == "65534:65534"


def test_a_second_build_makes_nothing_and_says_what_is_there(
    engine: Engine, docker_client: docker.DockerClient
) -> None:
    _build(engine)
    before = {name: docker_client.images.get(f"fleet/{name}:latest").id for name in LIMITS_MB}
    said = _build(engine)
    assert len(said.splitlines()) == 3
    assert "built" not in said
    assert {name: docker_client.images.get(f"fleet/{name}:latest").id for name in LIMITS_MB} == before


def test_the_sidecar_holds_litestream_and_certificates_and_nothing_else(
    images: str, docker_client: docker.DockerClient
) -> None:
    made = docker_client.api.create_container("fleet/sidecar:latest")
    content = io.BytesIO(b"".join(docker_client.api.export(made["Id"])))
    docker_client.api.remove_container(made["Id"])
    with tarfile.open(fileobj=content) as tar:
        files = {m.name: m for m in tar if m.isreg() and m.size}
    assert set(files) == {"litestream", "etc/ssl/certs/ca-certificates.crt"}
    assert files["litestream"].mode & 0o7777 == 0o755
    assert {(m.uid, m.gid) for m in files.values()} == {(0, 0)}


def test_every_image_starts_on_a_read_only_root_without_network(
    images: str, docker_client: docker.DockerClient
) -> None:
    for image, entrypoint, command in (
        ("fleet/worker:latest", ["python3"], ["-c", "import node.worker, node.workflow, apsw, uvloop, httptools"]),
        ("fleet/sidecar:latest", None, ["version"]),
        ("fleet/gateway:latest", None, ["-vv"]),
    ):
        docker_client.containers.run(
            image,
            command,
            entrypoint=entrypoint,
            read_only=True,
            cap_drop=["ALL"],
            network_mode="none",
            user="200000:200000",
            remove=True,
        )


def test_a_build_without_an_engine_says_so() -> None:
    done = subprocess.run(
        [sys.executable, BUILD.with_suffix(".py")],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "the engine does not answer" in done.stderr


def _build(engine: Engine) -> str:
    environment = {**os.environ, **engine.environment()}
    return subprocess.run([BUILD], env=environment, capture_output=True, text=True, check=True).stdout
